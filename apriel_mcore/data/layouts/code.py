"""Rows with programs to write and tests to pass: TACO, APPS, LiveCodeBench, HumanEval, MBPP, CRUXEval."""

import ast
import json
from typing import Any, Literal

import msgspec

from apriel_mcore.config.schema.layouts import CruxEval, HumanEval, LiveCodeBench, Mbpp, Taco
from apriel_mcore.data.item import Item, Unusable
from apriel_mcore.data.layouts.packed import unpack_tests
from apriel_mcore.errors import InputError
from apriel_mcore.types import Message
from apriel_mcore.verify.asserts import NotPlain, StatedTests, read_asserts
from apriel_mcore.verify.values import ValueNotPlain, decode, encode

_NOT_PARSED = (SyntaxError, RecursionError, MemoryError)
"""What Python's parser raises for texts that are no program, the last two for deeply nested ones."""


class _TacoRow(msgspec.Struct, frozen=True):
    question: str
    input_output: str
    difficulty: str = ""
    starter_code: str | None = None


class _InputOutput(msgspec.Struct, frozen=True):
    inputs: list[Any]
    outputs: list[Any]
    fn_name: str | None = None


class _LiveRow(msgspec.Struct, frozen=True):
    question_content: str
    public_test_cases: str
    private_test_cases: str
    starter_code: str = ""
    metadata: str = "{}"
    difficulty: str = ""


class _LiveTest(msgspec.Struct, frozen=True):
    input: str
    output: str
    testtype: str


class _HumanEvalRow(msgspec.Struct, frozen=True):
    prompt: str
    entry_point: str
    canonical_solution: str
    test: str


class _MbppRow(msgspec.Struct, frozen=True):
    prompt: str
    test: str


class _CruxRow(msgspec.Struct, frozen=True):
    function: str
    input: str
    output: str


def taco(layout: Taco, row: Any) -> Item:
    """A program with stdin tests, or a function where `fn_name` names one."""
    found = msgspec.convert(row, _TacoRow)
    if found.difficulty in layout.skip_difficulties:
        raise Unusable("filtered", f"difficulty {found.difficulty}")
    tests = _json(found.input_output, _InputOutput)
    pairs = list(zip(tests.inputs, tests.outputs, strict=False))[: layout.max_tests]
    if not pairs or len(tests.inputs) != len(tests.outputs):
        raise Unusable("no_answer", f"{len(tests.inputs)} inputs, {len(tests.outputs)} outputs")
    if not tests.fn_name:
        return _item(found.question, _programs([(_text(given), _text(printed)) for given, printed in pairs]))
    boxed = all(isinstance(output, list) and len(output) == 1 for _, output in pairs)
    stated = _calls([(given, output[0] if boxed else output) for given, output in pairs])
    return _item(
        _with_starter(found.question, found.starter_code or ""),
        stated,
        _entry_point(tests.fn_name, found.starter_code or ""),
        sequences="lenient",
    )


def livecodebench(layout: LiveCodeBench, row: Any) -> Item:
    """Public tests first, then private ones."""
    found = msgspec.convert(row, _LiveRow)
    return msgspec.structs.replace(_live_item(layout, found), level=found.difficulty)


def _live_item(layout: LiveCodeBench, found: _LiveRow) -> Item:
    public = _json(found.public_test_cases, list[_LiveTest])
    private = _json(unpack_tests(found.private_test_cases), list[_LiveTest])
    tests = [*public, *private][: layout.max_tests]
    if not tests:
        raise Unusable("no_answer", "no tests")
    name = _json(found.metadata, dict[str, Any]).get("func_name", "")
    question = _with_starter(found.question_content, found.starter_code)
    if tests[0].testtype == "stdin":
        return _item(question, _programs([(test.input, test.output) for test in tests]))
    stated = _calls(
        [([_value(line) for line in test.input.splitlines()], _value(test.output)) for test in tests]
    )
    return _item(question, stated, _entry_point(str(name), found.starter_code), sequences="lenient")


def human_eval(layout: HumanEval, row: Any) -> Item:
    """The head as prompt, head and canonical body as gold; asserts that are no plain calls run as written."""
    found = msgspec.convert(row, _HumanEvalRow)
    question = f"Complete this function. Give all of it in one code block.\n```python\n{found.prompt}```"
    gold = f"{found.prompt}{found.canonical_solution}"
    try:
        return _item(question, list(read_asserts(found.test).tests), found.entry_point, gold=gold)
    except NotPlain:
        asserts = f"{_helpers(found.prompt, found.entry_point)}\n\n{found.test}"
        return _item(question, [], found.entry_point, gold=gold, asserts=asserts)
    except InputError as error:
        raise Unusable("no_answer", str(error)) from None


def mbpp(layout: Mbpp, row: Any) -> Item:
    """Shows one assert, for the task alone does not name the function.

    The file has no solutions: the gold is a table of the tests' own values.
    """
    found = msgspec.convert(row, _MbppRow)
    stated = _asserts(found.test)
    lines = [line.lstrip() for line in found.test.splitlines()]
    shown = next((line for line in lines if line.startswith("assert")), "")
    if not shown:
        raise Unusable("tests_not_plain", "no line begins with an assert to show")
    question = f"{found.prompt}\nIt must pass this test:\n```python\n{shown}\n```"
    return _item(question, list(stated.tests), stated.callee, gold=_table(stated))


def cruxeval(layout: CruxEval, row: Any) -> Item:
    """The output to predict, as the value of a function without arguments."""
    found = msgspec.convert(row, _CruxRow)
    try:
        expected = encode(ast.literal_eval(found.output))
    except (ValueError, TypeError, *_NOT_PARSED) as error:  # also ValueNotPlain
        raise Unusable("no_answer", f"output is not a plain literal: {error}") from None
    question = (
        f"```python\n{found.function}\n```\nWhat does f({found.input}) return? "
        "Define answer() that returns this value, in one code block."
    )
    gold = f"{found.function}\n\ndef answer():\n    return f({found.input})"
    return _item(question, [{"args": [], "expected": expected}], "answer", gold=gold)


def _item(
    question: str,
    tests: list[dict[str, Any]],
    entry_point: str = "",
    *,
    gold: str = "",
    asserts: str = "",
    sequences: Literal["strict", "lenient"] = "strict",
) -> Item:
    """`lenient` for expected values that went through JSON, which has no tuples."""
    if not question.strip():
        raise Unusable("no_question", "the question is empty")
    return Item(
        messages=(Message("user", question),),
        verifier="code",
        reference={
            "tests": tests,
            "asserts": asserts,
            "entry_point": entry_point,
            "sequences": sequences,
            "gold": f"```python\n{gold}\n```" if gold else "",
        },
        split_key=" ".join(question.split()),
    )


def _json[T](text: str, record: type[T]) -> T:
    try:
        return msgspec.convert(json.loads(text), record)
    except (
        ValueError,
        RecursionError,
    ) as error:  # also JSONDecodeError and ValidationError
        raise Unusable("no_answer", f"tests are not the expected JSON: {error}") from None


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unusable("no_answer", f"a test's value is not JSON: {error}") from None


def _text(value: Any) -> str:
    """Program input and output: a text, or a list of lines."""
    lines = value if isinstance(value, list) else [value]
    if None in lines:
        raise Unusable("no_answer", "a test's input or output is null")
    return "\n".join(map(str, lines))


def _programs(pairs: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """Tests of what a program reads and prints."""
    if not any(printed.strip() for _, printed in pairs):
        raise Unusable("no_answer", "every expected output is blank: a program that prints nothing passes")
    return [{"stdin": given, "expected": printed} for given, printed in pairs]


def _calls(pairs: list[tuple[Any, Any]]) -> list[dict[str, Any]]:
    """Tests of what a function takes and returns."""
    if all(expected is None for _, expected in pairs):
        raise Unusable("no_answer", "every expected value is null: a function that does nothing passes")
    return [_call(args, expected) for args, expected in pairs]


def _call(args: Any, expected: Any) -> dict[str, Any]:
    if not isinstance(args, list):
        raise Unusable("no_answer", "a function test needs a list of arguments")
    try:
        return {"args": [encode(arg) for arg in args], "expected": encode(expected)}
    except ValueNotPlain as error:
        raise Unusable("no_answer", str(error)) from None


def _entry_point(name: str, starter: str) -> str:
    return f"Solution.{name}" if "class Solution" in starter else name


def _with_starter(question: str, starter: str) -> str:
    return f"{question}\n\nStart from this code:\n```python\n{starter}\n```" if starter.strip() else question


def _asserts(source: str) -> StatedTests:
    try:
        return read_asserts(source)
    except InputError as error:
        raise Unusable("tests_not_plain", str(error)) from None


def _helpers(prompt: str, entry_point: str) -> str:
    """What a prompt defines beside the function that is asked for: its tests may use it."""
    try:
        body = [
            node
            for node in ast.parse(prompt).body
            if not (isinstance(node, ast.FunctionDef) and node.name == entry_point)
        ]
        return ast.unparse(ast.Module(body, type_ignores=[]))
    except (ValueError, *_NOT_PARSED) as error:
        raise Unusable("no_answer", f"the prompt is not Python: {error}") from None


def _table(stated: StatedTests) -> str:
    """A program that knows the answers: it proves that the tests pass on the values they state."""
    try:
        lines = _cases(stated)
    except ValueError as error:
        raise Unusable("tests_not_plain", str(error)) from None
    return f"def {stated.callee}(*args):\n    nan, inf = float('nan'), float('inf')\n" + "\n".join(lines)


def _cases(stated: StatedTests) -> list[str]:
    """ValueError for an integer of more digits than Python writes."""
    known = [([decode(arg) for arg in test["args"]], decode(test["expected"])) for test in stated.tests]
    return [f"    if list(args) == {args!r}:\n        return {expected!r}" for args, expected in known]
