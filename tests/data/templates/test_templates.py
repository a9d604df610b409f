"""Template sets: hundreds of items, golds that solve them, and no constant answer that pays."""

import json
from collections import Counter
from typing import Any, get_args

import pytest

from apriel_mcore.config.schema import TemplateName, TemplateSource
from apriel_mcore.data.item import Item
from apriel_mcore.data.templates import TEMPLATES, functions, items
from apriel_mcore.errors import InputError
from apriel_mcore.verify import math
from apriel_mcore.verify.instruction import judge

SHOTS = {"sums": 2, "functions": 1, "constraints": 1, "calls": 2}


def generate(name: str, **changes: Any) -> list[Item]:
    return items(TemplateSource(name=name, **{"size": 400, "shots": SHOTS[name], **changes}))


@pytest.mark.parametrize("name", TEMPLATES)
def test_asked_number_of_distinct_questions_the_same_every_time(name: str) -> None:
    made = generate(name)
    assert len(made) == len({item.messages[-1].content for item in made}) == 400
    assert made == generate(name)
    assert made != generate(name, seed=1)


@pytest.mark.parametrize("name", TEMPLATES)
def test_shots_are_solved_turns_that_do_not_give_the_answer_away(name: str) -> None:
    for item in generate(name):
        roles = [message.role for message in item.messages]
        assert roles == ["user", "assistant"] * SHOTS[name] + ["user"]
        shown = [message.content for message in item.messages[:-1]]
        assert item.reference["gold"] not in shown
        assert item.messages[-1].content not in shown


@pytest.mark.parametrize("name", TEMPLATES)
def test_no_shots_no_examples(name: str) -> None:
    assert all(len(item.messages) == 1 for item in generate(name, shots=0))


@pytest.mark.parametrize("name", TEMPLATES)
def test_more_than_there_are_is_refused_with_the_number(name: str) -> None:
    with pytest.raises(InputError, match=r"size = 100000 exceeds the \d+ distinct items"):
        generate(name, size=100_000)


@pytest.mark.parametrize("name", ["sums", "functions", "constraints"])
def test_more_examples_than_there_are(name: str) -> None:
    with pytest.raises(InputError, match=r"shots = 9: the .* template has \d examples"):
        generate(name, shots=9)


def test_a_recipe_may_name_every_template() -> None:
    assert set(TEMPLATES) == set(get_args(TemplateName))


def test_sums_are_right_and_their_results_spread() -> None:
    made = generate("sums")
    for item in made:
        left, sign, right = item.split_key.split()
        assert int(item.reference["answer"]) == int(left) + (int(right) if sign == "+" else -int(right))
        assert math.verify(item.reference, item.reference["gold"]).success
    most = Counter(item.reference["answer"] for item in made).most_common(1)[0][1]
    assert most / len(made) <= 1 / 18 + 0.05


def test_swapped_sums_share_their_key() -> None:
    keys = {item.messages[-1].content: item.split_key for item in generate("sums", size=486, shots=0)}
    assert (
        keys["What is 3 + 8? Reply with only the number."]
        == keys["How much is 8 + 3? Reply with only the number."]
    )


def test_function_golds_pass_their_hidden_tests_and_other_golds_fail() -> None:
    made = generate("functions")
    for item, other in zip(made, made[1:] + made[:1], strict=True):
        assert passes(item, item.reference["gold"])
        renamed = other.reference["gold"].replace(
            other.reference["entry_point"], item.reference["entry_point"]
        )
        assert not passes(item, renamed), (item.reference["gold"], renamed)


def test_every_function_has_a_test_for_each_side_of_its_boundary() -> None:
    for item in generate("functions"):
        expected = [test["expected"] for test in item.reference["tests"]]
        assert len(expected) >= 5 and len({json.dumps(value) for value in expected}) >= 2, item.split_key


def test_a_function_is_asked_for_under_its_own_name_only() -> None:
    made = generate("functions")
    assert len({item.reference["entry_point"] for item in made}) == len(made)
    families = {family.name for family in (*functions.NUMBERS, *functions.WORDS, *functions.PAIRS)}
    assert len(families) == len(functions.NUMBERS) + len(functions.WORDS) + len(functions.PAIRS)


def passes(item: Item, source: str) -> bool:
    """Our own golds are trusted: they run here."""
    namespace: dict[str, Any] = {}
    exec(source, namespace)
    function = namespace[item.reference["entry_point"]]
    try:
        return all(same(function(*test["args"]), test["expected"]) for test in item.reference["tests"])
    except (TypeError, AttributeError, IndexError):
        return False


def same(found: object, expected: object) -> bool:
    return type(found) is type(expected) and found == expected


def test_constraint_golds_keep_all_and_one_text_does_not_fit_all() -> None:
    made = generate("constraints")
    for item in made:
        assert judge.verify(item.reference, item.reference["gold"]).success
    kinds = Counter(len(item.reference["instructions"]) for item in made)
    assert kinds == {2: 160, 3: 240}, "the word, and one or two constraints in equal parts"
    best = max(
        sum(judge.verify(item.reference, candidate.reference["gold"]).success for item in made)
        for candidate in made[:10]
    )
    assert best / len(made) <= 0.05


def test_call_golds_are_the_calls_described() -> None:
    for item in generate("calls"):
        call = json.loads(item.reference["gold"])
        (answer,) = item.reference["answer"]
        assert answer == {call["name"]: {name: [value] for name, value in call["arguments"].items()}}
        (schema,) = item.reference["functions"]
        types = {"string": str, "integer": int}
        for name, value in call["arguments"].items():
            assert type(value) is types[schema["parameters"]["properties"][name]["type"]]


def test_functions_called_are_spread_evenly() -> None:
    called = Counter(json.loads(item.reference["gold"])["name"] for item in generate("calls"))
    assert max(called.values()) - min(called.values()) <= 4
