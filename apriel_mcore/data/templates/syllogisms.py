"""Does a statement about classes follow from others? By looking at every model there is.

Readings differ in whether "All A are B" says that there is an A. Modern logic lets every class be empty,
Aristotle none; what follows in both or in neither does not depend on the reading.
"""

import re
from collections.abc import Sequence
from functools import cache
from itertools import combinations
from typing import Any, NamedTuple

from apriel_mcore.data.item import Unusable
from apriel_mcore.errors import InputError

_STATEMENT = re.compile(r"(All|No|Some) (\w+) are (not )?(\w+)")


class Statement[Term: (str, int)](NamedTuple):
    """All, No, Some, or Some not: of the subject's members, which are members of the predicate?"""

    quantifier: str
    subject: Term
    predicate: Term


type _Region = frozenset[int]
"""What is in these of the classes 0, 1 and 2, and in no other of them."""

_REGIONS: list[_Region] = [frozenset(within) for size in range(4) for within in combinations(range(3), size)]
_MODELS = [model for size in range(9) for model in combinations(_REGIONS, size)]
"""A model is told by its regions that have a member: 2^8 of them. No statement sees how many members."""


def doubt(facts: dict[str, Any]) -> Unusable | None:
    """Why the gold of a reasoning-gym entry with this metadata is not to be trusted; None where it is right.

    `ambiguous`: it depends on the reading. `wrong_gold`: it is wrong in every one. InputError for a
    statement of another form, and for more than three classes.
    """
    premises = [read(facts["premise1"]), read(facts["premise2"])]
    conclusion = read(facts["conclusion"])
    modern, traditional = (follows(premises, conclusion, may_be_empty=empty) for empty in (True, False))
    if modern != traditional:
        return Unusable("ambiguous", "it follows only if every class has a member")
    if modern != facts["is_valid"]:
        return Unusable("wrong_gold", "it follows" if modern else "it does not follow")
    return None


def read(text: str) -> Statement[str]:
    """A statement as reasoning-gym writes it; InputError for any other."""
    found = _STATEMENT.fullmatch(text)
    if not found or (found[3] and found[1] != "Some"):
        raise InputError(f"syllogism {text!r}: not All, No or Some ... are, or Some ... are not")
    return Statement("Some not" if found[3] else found[1], found[2], found[4])


def follows(premises: Sequence[Statement[str]], conclusion: Statement[str], *, may_be_empty: bool) -> bool:
    """Whether the conclusion is true in every model of the premises; InputError for over three classes."""
    statements = (*premises, conclusion)
    terms = dict.fromkeys(term for statement in statements for term in statement[1:])
    if len(terms) > 3:
        raise InputError(f"syllogism about {', '.join(terms)}: more than three classes")
    number = {term: place for place, term in enumerate(terms)}
    return _follows(
        tuple(Statement(kind, number[subject], number[predicate]) for kind, subject, predicate in statements),
        may_be_empty,
    )


@cache
def _follows(statements: tuple[Statement[int], ...], may_be_empty: bool) -> bool:
    """Of the first ones, the last; a few dozen forms occur."""
    *premises, conclusion = statements
    return all(
        _holds(conclusion, model)
        for model in _MODELS
        if (may_be_empty or len(frozenset().union(*model)) == 3)
        and all(_holds(premise, model) for premise in premises)
    )


def _holds(statement: Statement[int], model: tuple[_Region, ...]) -> bool:
    members = [statement.predicate in region for region in model if statement.subject in region]
    match statement.quantifier:
        case "All":
            return all(members)
        case "No":
            return not any(members)
        case "Some":
            return any(members)
        case _:
            return not all(members)
