"""The function-calling judge: shapes come before the leaderboard's checker, extra calls cost credit."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apriel_mcore.data.wheels import wheel_path
from apriel_mcore.errors import InputError
from apriel_mcore.verify.calls import self_check, verify


@pytest.fixture(autouse=True, scope="module")
def _checker_wheel() -> None:
    try:
        wheel_path("bfcl-eval")
    except InputError as error:
        pytest.skip(str(error))


def function(name: str, required: list[str], **properties: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "parameters": {"type": "dict", "properties": properties, "required": required}}


ADD = function("math.add", ["a", "b"], a={"type": "integer"}, b={"type": "integer"}, unit={"type": "string"})
FIND = function("find", ["words"], words={"type": "array", "items": {"type": "string"}}, by={"type": "dict"})
NUMBERS = {name: {"type": "number"} for name in ("a", "b", "unit")}
ONE = {
    "functions": [ADD, FIND],
    "answer": [{"math.add": {"a": [1], "b": [2], "unit": ["", "cm"]}}],
    "kind": "multiple",
}
TWO = {
    "functions": [ADD, FIND],
    "answer": [
        {"math.add": {"a": [1], "b": [2]}},
        {"find": {"words": [["x", "y"]], "by": [{"key": ["age", "name"], "order": ["", 1]}]}},
    ],
    "kind": "parallel_multiple",
}


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": arguments}


SUM = call("math_add", a=1, b=2)
LOOKUP = call("find", words=["x", "y"], by={"key": "age"})


@pytest.mark.parametrize(
    "written",
    [
        [SUM],
        SUM,
        [call("math.add", a=1, b=2)],
        [call("math_add", b=2, a=1, unit="CM")],
    ],
)
def test_right_calls(written: object) -> None:
    assert verify(ONE, json.dumps(written)).success
    assert verify(ONE, f"<tool_calls>{json.dumps(written)}</tool_calls>").success


@pytest.mark.parametrize(
    "written",
    [
        [call("math_add", a=1, b=2, c=3)],
        [call("math_add", a=1)],
        [call("math_add", a=1, b=3)],
        [call("math_add", a=1, b="2")],
        [call("math_add", a=1, b=2.0)],
        [call("math_add", a=True, b=2)],
        [call("math_add", a=1, b=None)],
        [call("math_add", a=1, b=2, unit="m")],
        [call("find", words=["x"])],
        [SUM, SUM],
        [SUM, LOOKUP],
    ],
)
def test_wrong_calls(written: object) -> None:
    verdict = verify(ONE, json.dumps(written))
    assert (verdict.status, verdict.score) == ("wrong", 0.0)


@pytest.mark.parametrize(
    "text",
    [
        '{"math_add": {"a": 1, "b": 2}, "other": {}}',
        '{"name": "math_add", "arguments": {"a": 1, "b": 2}, "find": {}}',
        '{"name": "math_add", "arguments": null}',
        '{"name": null, "arguments": {}}',
        '[{"name": "math_add", "arguments": [1, 2]}]',
        "[null]",
        "[[]]",
        '[{"name": "math_add", "arguments": {"a": NaN}}]',
        '{"name": "math_add", "arguments": {"a": 1, "b": 2}} done',
        "<tool_calls>math_add(1, 2)</tool_calls>",
        "[" * 10_000,
        '{"a":' * 10_000,
    ],
)
def test_ill_formed_calls_are_unparsable(text: str) -> None:
    assert verify(ONE, text).status == "unparsable"


@pytest.mark.parametrize("text", ["", "math_add(1, 2)", "[]", "<tool_calls>[]</tool_calls>", "<tool_calls>"])
def test_no_call_is_no_answer(text: str) -> None:
    assert verify(ONE, text).status == "no_answer"


@pytest.mark.parametrize(
    ("written", "score", "status"),
    [
        ([SUM, LOOKUP], 1.0, "correct"),
        ([LOOKUP, SUM], 1.0, "correct"),
        ([SUM], 0.5, "partial"),
        ([SUM, SUM], 0.5, "partial"),
        ([SUM, LOOKUP, SUM], 2 / 3, "partial"),
        ([LOOKUP] + [SUM] * 9, 0.2, "partial"),
        ([call("find", words=["z"])], 0.0, "wrong"),
    ],
)
def test_parallel_calls_earn_their_share(written: list[Any], score: float, status: str) -> None:
    verdict = verify(TWO, json.dumps(written))
    assert verdict.score == pytest.approx(score)
    assert verdict.status == status
    assert verdict.success == (status == "correct")


NO_CALL = {"functions": [ADD, FIND], "answer": [], "kind": "live_irrelevance"}


@pytest.mark.parametrize(
    "text",
    [
        "None of the functions helps.",
        "<think>math_add(1, 2)?</think>I cannot find (or add) that.",
        "I have only `math_add`, which needs two numbers; f(x) = 3 is none.",
        'Please give me the "name" of the city: Paris or Rome?',
        "Function: math_add adds two numbers, which is not asked.",
        "No tool_call: none of the functions fits.",
        "Action: none. I have only find (for words) and math_add (two numbers).",
    ],
)
def test_where_no_function_fits_words_are_right(text: str) -> None:
    self_check(NO_CALL)
    assert verify(NO_CALL, text).success


@pytest.mark.parametrize("text", ["", " ", "...", "[]", "<think>still thinking", "<think>hm</think>"])
def test_silence_is_no_answer_where_no_function_fits(text: str) -> None:
    assert verify(NO_CALL, text).status == "no_answer"


@pytest.mark.parametrize(
    "text",
    [
        json.dumps([SUM]),
        json.dumps(SUM),
        f"<tool_call>{json.dumps(SUM)}</tool_call>",
        f"<tool_calls>{json.dumps([SUM])}</tool_calls>",
        "<tool_calls></tool_calls> Nothing.",
        "math_add(a=1, b=2)",
        "math.add(1, 2)",
        "Let me see: find(words=['x'])",
        'search(query="x")',
        f"Sure.\n```json\n{json.dumps([SUM])}\n```",
        f"I will call it: {json.dumps([SUM])}",
        'I call {"math.add": {"a": 1, "b": 2}}.',
        "I call {'name' : 'math_add'",
        'I take <function=math_add>{"a": 1}</function>',
        "<function=math.add>\n<parameter=a>1</parameter>\n</function>",
        'Then <invoke name="math_add"><parameter name="a">1</parameter></invoke>',
        "<|python_tag|>math_add.call(a=1)",
        "math_add.call(a=1)",
        "I would run math_add (a = 1)",
        "Action: math_add\nAction Input: 1",
        "I think so.\nAction: `find`",
        "tool_call: math_add",
        'So math_add: {"a": 1}',
        "math.add{a:1}",
        'Now to=functions.math_add json{"a":1}',
        'I say {"tool": "math_add", "args": {}}',
        "[TOOL_CALLS]math_add[ARGS]1",
    ],
)
def test_a_call_in_any_form_is_wrong_where_no_function_fits(text: str) -> None:
    assert verify(NO_CALL, text).status == "wrong"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-3, 3) | st.floats(allow_nan=False) | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abk"), inner, max_size=2)
        ),
        max_leaves=6,
    ),
    st.sampled_from(["words", "by", "key"]),
)
def test_no_argument_breaks_the_checker(value: object, name: str) -> None:
    written = json.dumps([SUM, call("find", **{"words": ["x", "y"], "by": {"key": "age"}, name: value})])
    assert verify(TWO, written).status in ("correct", "partial", "unparsable")


def test_references_check_themselves() -> None:
    self_check(ONE)
    self_check(TWO)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "sideways"}, "kind"),
        ({"answer": []}, "0 answers"),
        ({"answer": [{"subtract": {}}]}, "subtract"),
        ({"answer": [{"math.add": {"a": [1], "b": [2]}, "find": {}}]}, "one of the functions"),
        ({"answer": [{"math.add": {"a": ["one"], "b": [2], "z": [1]}}]}, "'z'"),
        ({"answer": [{"math.add": {"a": [""], "b": [2]}}]}, "do not verify"),
        ({"functions": [function("math.add", [], **NUMBERS)]}, "number"),
        ({"functions": []}, "functions"),
    ],
)
def test_bad_references_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        self_check({**ONE, **change})
