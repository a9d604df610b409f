"""What follows: against universes small enough to look at, and against the classical lists."""

from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apriel_mcore.data.item import Unusable
from apriel_mcore.data.templates.syllogisms import Statement, doubt, follows, read
from apriel_mcore.errors import InputError

QUANTIFIERS = {"A": "All", "E": "No", "I": "Some", "O": "Some not"}
FIGURES = {1: ("MP", "SM"), 2: ("PM", "SM"), 3: ("MP", "MS"), 4: ("PM", "MS")}
"""Subject and predicate of the major and the minor premise."""

ALWAYS = {
    1: {"AAA", "EAE", "AII", "EIO"},
    2: {"AEE", "EAE", "AOO", "EIO"},
    3: {"AII", "IAI", "EIO", "OAO"},
    4: {"AEE", "IAI", "EIO"},
}
"""Valid though a class may be empty: Barbara, Celarent, Darii, Ferio and so on."""

WITH_MEMBERS = {1: {"AAI", "EAO"}, 2: {"AEO", "EAO"}, 3: {"AAI", "EAO"}, 4: {"AEO", "EAO", "AAI"}}
"""Valid in addition where every class has a member: Barbari, Celaront, Darapti and so on."""

statements = st.builds(
    Statement, st.sampled_from(list(QUANTIFIERS.values())), st.sampled_from("abc"), st.sampled_from("abc")
)


def valid_moods(figure: int, *, may_be_empty: bool) -> set[str]:
    def statement(letter: str, terms: str) -> Statement[str]:
        return Statement(QUANTIFIERS[letter], *terms)

    return {
        "".join(mood)
        for mood in product("AEIO", repeat=3)
        if follows(
            [statement(letter, terms) for letter, terms in zip(mood, FIGURES[figure], strict=False)],
            statement(mood[2], "SP"),
            may_be_empty=may_be_empty,
        )
    }


@pytest.mark.parametrize("figure", FIGURES)
def test_the_classical_moods_are_valid_and_no_others(figure: int) -> None:
    assert valid_moods(figure, may_be_empty=True) == ALWAYS[figure]
    assert valid_moods(figure, may_be_empty=False) == ALWAYS[figure] | WITH_MEMBERS[figure]


def holds(statement: Statement[str], extension: dict[str, frozenset[int]]) -> bool:
    subject, predicate = extension[statement.subject], extension[statement.predicate]
    return {
        "All": subject <= predicate,
        "No": not subject & predicate,
        "Some": bool(subject & predicate),
        "Some not": bool(subject - predicate),
    }[statement.quantifier]


SETS = [frozenset(n for n in range(3) if pattern[n]) for pattern in product((0, 1), repeat=3)]
UNIVERSES = [dict(zip("abc", sets, strict=True)) for sets in product(SETS, repeat=3)]
"""Three classes of three things. Refuting takes a thing for each of the three statements that says there
is one, or one for each class that must have a member and that may be another."""


@given(
    premises=st.lists(statements, min_size=2, max_size=2), conclusion=statements, may_be_empty=st.booleans()
)
def test_it_follows_where_no_small_universe_refutes_it(
    premises: tuple[Statement[str], ...], conclusion: Statement[str], may_be_empty: bool
) -> None:
    named = {term for statement in (*premises, conclusion) for term in statement[1:]}
    refuted = any(
        all(holds(premise, universe) for premise in premises) and not holds(conclusion, universe)
        for universe in UNIVERSES
        if may_be_empty or all(universe[term] for term in named)
    )
    assert follows(premises, conclusion, may_be_empty=may_be_empty) == (not refuted)


def facts(*statements: str, gold: bool) -> dict[str, Any]:
    return {**dict(zip(("premise1", "premise2", "conclusion"), statements, strict=True)), "is_valid": gold}


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (facts("All ants are bees", "All bees are cats", "All ants are cats", gold=True), ""),
        (facts("All ants are bees", "All bees are cats", "All ants are cats", gold=False), "wrong_gold"),
        (facts("All ants are bees", "Some bees are cats", "Some ants are cats", gold=True), "wrong_gold"),
        (facts("All ants are bees", "Some bees are cats", "Some ants are cats", gold=False), ""),
        (facts("All ants are bees", "All bees are cats", "Some ants are cats", gold=True), "ambiguous"),
        (facts("All ants are bees", "All bees are cats", "Some ants are cats", gold=False), "ambiguous"),
        (facts("All ants are bees", "Some bees are cats", "Some bees are ants", gold=True), "ambiguous"),
        (facts("No ants are bees", "Some bees are cats", "Some cats are not ants", gold=True), ""),
    ],
)
def test_a_gold_is_doubted_for_a_reason(entry: dict[str, Any], reason: str) -> None:
    found = doubt(entry)
    assert (found.reason if isinstance(found, Unusable) else "") == reason


def test_four_classes_are_an_input_error() -> None:
    with pytest.raises(InputError, match="ants, bees, cats, dogs: more than three classes"):
        doubt(facts("All ants are bees", "Some cats are dogs", "Some bees are ants", gold=True))


@pytest.mark.parametrize("text", ["Every ant is a bee", "All ants are not bees", "Some ants are bees."])
def test_a_statement_of_another_form_is_an_input_error(text: str) -> None:
    with pytest.raises(InputError, match=r"syllogism '.*': not All, No or Some"):
        read(text)
