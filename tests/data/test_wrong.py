"""Wrong answers are wrong: different from the gold, repeatable, and as many as asked where there are any."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apriel_mcore.config.schema import TemplateSource
from apriel_mcore.data import wrong
from apriel_mcore.data.templates import constraints
from apriel_mcore.types import Problem
from apriel_mcore.verify import calls, math
from apriel_mcore.verify.instruction import judge
from apriel_mcore.verify.puzzles import judge as puzzles
from tests.verify.puzzles.cases import CASES


def problem(verifier: str, **reference: Any) -> Problem:
    return Problem(
        id="p", domain="d", source="s", messages=(), verifier=verifier, reference=reference, split_key="k"
    )


@settings(deadline=None, max_examples=30)  # the first expression imports a parser
@given(st.integers(-(10**6), 10**6))
def test_other_numbers_are_refused(number: int) -> None:
    reference = {"answer": str(number), "format": "boxed"}
    found = wrong.answers(problem("math", **reference), num=6, seed=0)
    assert len(found) == 6 == len(set(found))
    assert found == wrong.answers(problem("math", **reference), num=6, seed=0)
    assert not any(math.verify(reference, text).success for text in found)


def test_an_expression_has_no_wrong_answer_that_is_known() -> None:
    assert wrong.answers(problem("math", answer=r"\sqrt{2}", format="boxed"), num=3, seed=0) == []
    assert wrong.answers(problem("instruction", instructions=[], gold="x"), num=3, seed=0) == []
    assert (
        wrong.answers(problem("instruction", instructions=[{"kind": "x", "args": {}}]), num=3, seed=0) == []
    )


def test_broken_constraints_are_refused_and_the_gold_is_not() -> None:
    for item in constraints.items(TemplateSource(name="constraints", size=40)):
        assert judge.verify(item.reference, item.reference["gold"]).success
        found = wrong.answers(problem("instruction", **item.reference), num=5, seed=0)
        assert len(found) == 5 and not any(judge.verify(item.reference, text).success for text in found)


@pytest.mark.parametrize(("task", "facts"), [case[:2] for case in CASES])
def test_changed_solutions_of_puzzles_are_refused(task: str, facts: dict[str, Any]) -> None:
    gold = puzzles.gold_text(task, facts)
    if gold:
        reference = {"task": task, "facts": facts, "gold": gold}
        found = wrong.answers(problem("puzzles", **reference), num=20, seed=0)
        assert len(found) > 3 and gold not in found
        assert not any(puzzles.verify(reference, text).success for text in found)


def test_changed_calls_are_not_the_gold() -> None:
    gold = json.dumps([{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {}}])
    found = wrong.answers(problem("calls", gold=gold), num=9, seed=0)
    assert len(found) >= 7 and gold not in found


def test_where_no_function_fits_calls_and_silence_are_refused() -> None:
    functions = [{"name": "math.add", "parameters": {"type": "dict", "properties": {}}}]
    reference = {"functions": functions, "answer": [], "kind": "irrelevance"}
    found = wrong.answers(problem("calls", **reference), num=20, seed=0)
    assert len(found) == 12 and not any(calls.verify(reference, text).success for text in found)


@pytest.mark.parametrize(
    ("task", "gold", "among"),
    [
        ("chain_sum", "57", ["-57", "5"]),
        ("chain_sum", "-57", ["57", "-5"]),
        ("decimal_chain_sum", "25.410", ["-25.410"]),
        ("tower_of_hanoi", "Move disk 1 from Peg 2 to Peg 1", []),
    ],
)
def test_signs_digits_and_junk_are_changed_in_puzzles(task: str, gold: str, among: list[str]) -> None:
    entry = {"question": "?", "answer": gold, "metadata": {}}
    found = wrong.answers(problem("logic", task=task, entry=entry, gold=gold), num=99, seed=0)
    assert set(among) <= set(found) and gold not in found
    assert sum(text.endswith((f" {gold}", f"\n{gold}")) for text in found) == 4  # doubled, denied, junk
    numbers = [text for text in found if among and text.startswith(gold) and text != f"{gold} {gold}"]
    assert not among or any(text[len(gold) :].isdigit() for text in numbers)
    assert "25.41" not in found


@pytest.mark.parametrize("value", ["3", "True", "'x'", "[1]", "None", "0.5", "float('inf')", "{1: 2}"])
def test_spoiled_programs_return_something_else(value: str) -> None:
    gold = f"```python\ndef f(x):\n    return {value}\n```"
    for text in wrong.answers(problem("code", gold=gold, entry_point="f"), num=3, seed=1):
        space: dict[str, Any] = {}
        exec(text.removeprefix("```python\n").removesuffix("```"), space)
        assert space["f"](0) != eval(value) or value == "float('inf')"


def test_a_lone_call_and_a_list_of_one_are_changed_alike() -> None:
    call = {"name": "f", "arguments": {"a": 1}}
    lone, listed = (
        wrong.answers(problem("calls", gold=json.dumps(g)), num=20, seed=0) for g in (call, [call])
    )
    assert lone[:-1] == listed[:-1] and len(lone) >= 7
