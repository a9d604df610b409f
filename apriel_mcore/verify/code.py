"""Does this program pass every test?

    text -> final answer -> last code block -> sandbox -> claimed values -> compared here with the expected

The sandbox gets code and inputs, never an expected value, so there is nothing in it to read or to overload:
a marker on stdout, an object that equals everything or a forged reply all end as a value that must be right.
"""

import json
import math
import signal
from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from apriel_mcore.errors import InputError
from apriel_mcore.types import Verdict
from apriel_mcore.verify.answer import code_or_bare_text, final_answer, last_code_block
from apriel_mcore.verify.outcome import CORRECT, NO_ANSWER, failed, read_reference
from apriel_mcore.verify.sandbox import Job, Ran, SandboxLimits, open_sandbox
from apriel_mcore.verify.values import ValueNotPlain, decode

REL_TOL = 1e-6
ABS_TOL = 1e-9
"""For expected zeros, where a relative tolerance is none."""

Outcome = Literal["passed", "wrong", "timeout", "missing"]


class CodeTest(msgspec.Struct, frozen=True, kw_only=True):
    """One test: of a function (`args`), or of a program (`stdin`, and a text as `expected`)."""

    args: tuple[Any, ...] = ()
    """Argument trees as values.encode writes them."""
    stdin: str = ""
    expected: Any


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """Gold of a code problem."""

    tests: tuple[CodeTest, ...]
    entry_point: str = ""
    """Function `name` or method `Class.name`; empty: a whole program that reads stdin and prints."""
    bare: bool = False
    """Code without a fence counts: the whole answer."""


def verify(reference: dict[str, Any], text: str, limits: SandboxLimits) -> Verdict:
    """The verdict on one answer; binary: every test must pass.

    A problem's tests share one run and its limits. InputError when the reference is not a Reference or the
    sandbox backend does not work on this machine; VerifierError when the sandbox broke.
    """
    gold = _read(reference, limits)
    answer = final_answer(text)
    source = code_or_bare_text(answer) if gold.bare else last_code_block(answer)
    if not source.strip():
        return NO_ANSWER
    if len(source) > limits.source_chars:
        return failed("unparsable", f"longer than {limits.source_chars} characters")
    ran = open_sandbox(limits.backend).run(_job(gold, source), limits)
    return _judge(gold, ran)


def self_check(reference: dict[str, Any], limits: SandboxLimits) -> None:
    """InputError unless there are tests, all readable, and within what the limits let through."""
    gold = _read(reference, limits)
    if not gold.tests:
        raise InputError("reference: tests: found none, every answer would pass")
    for number, test in enumerate(gold.tests):
        try:
            replied = len(json.dumps(test.expected))
            _ = [decode(tree) for tree in (*test.args, test.expected)]
        except ValueNotPlain as error:
            raise InputError(f"reference: tests[{number}]: {error}") from error
        if replied * len(gold.tests) > limits.reply_bytes // 2:
            raise InputError(
                f"reference: tests[{number}]: expected: too large for {limits.reply_bytes} reply bytes"
            )


def _read(reference: dict[str, Any], limits: SandboxLimits) -> Reference:
    gold = read_reference(reference, Reference)
    for number, test in enumerate(gold.tests):
        if gold.entry_point:
            continue
        if not isinstance(test.expected, str):
            raise InputError(f"reference: tests[{number}]: expected: a program's output is a text")
        if len(test.stdin.encode()) > limits.file_bytes:
            raise InputError(f"reference: tests[{number}]: stdin: longer than {limits.file_bytes} bytes")
    return gold


def _job(gold: Reference, source: str) -> Job:
    inputs_N = [test.args if gold.entry_point else test.stdin for test in gold.tests]
    return Job(source=source, entry_point=gold.entry_point, inputs_N=inputs_N)


def _judge(gold: Reference, ran: Ran) -> Verdict:
    for reply in ran.replies:
        if reply.get("compiled") is False:
            return failed("unparsable", f"does not compile: {reply.get('error')}")
    first = _first_replies(ran)
    outcomes: list[Outcome] = [_outcome(gold, number, first) for number in range(len(gold.tests))]
    if all(outcome == "passed" for outcome in outcomes):
        return CORRECT
    detail = ", ".join(_failures(outcomes, ran, first))[:500]
    if "timeout" in outcomes or (ran.ending in ("cpu", "wall") and "missing" in outcomes):
        return Verdict(score=0.0, success=False, status="timeout", detail=detail)
    return failed("wrong", detail)


def _first_replies(ran: Ran) -> dict[int, dict[str, Any]]:
    """By test; later replies to the same test are ignored, so a value cannot be guessed twice."""
    first: dict[int, dict[str, Any]] = {}
    for reply in ran.replies:
        test = reply.get("test")
        if type(test) is int:
            first.setdefault(test, reply)
    return first


def _outcome(gold: Reference, number: int, first: dict[int, dict[str, Any]]) -> Outcome:
    if number not in first:
        return "missing"
    expected, reply = gold.tests[number].expected, first[number]
    if gold.entry_point:
        return "passed" if "value" in reply and _value_matches(expected, reply["value"]) else "wrong"
    if reply.get("exit") in (-signal.SIGXCPU, -signal.SIGKILL):
        return "timeout"
    printed = reply.get("stdout")
    right = reply.get("exit") == 0 and isinstance(printed, str) and same_output(expected, printed)
    return "passed" if right else "wrong"


def _failures(outcomes: list[Outcome], ran: Ran, first: dict[int, dict[str, Any]]) -> Iterator[str]:
    yield f"{outcomes.count('passed')} of {len(outcomes)} tests passed"
    for reply in ran.replies:
        if reply.get("loaded") is False:
            yield f"load: {reply.get('error')}"
    for number, outcome in enumerate(outcomes):
        if outcome == "missing":
            yield f"test {number}: no reply ({ran.ending})"
            break
        if outcome != "passed":
            yield f"test {number}: {first[number].get('error', outcome)}"
            break


def _value_matches(expected_tree: Any, claimed_tree: Any) -> bool:
    # A right value is about as long as the expected one. Anything much longer is wrong already, and is not
    # decoded: a set of a hundred thousand colliding integers would cost minutes to build.
    if len(json.dumps(claimed_tree)) > 1024 + 16 * len(json.dumps(expected_tree)):
        return False
    try:
        claimed = decode(claimed_tree)
    except ValueNotPlain:
        return False
    return same_value(decode(expected_tree), claimed)


def same_value(expected: Any, claimed: Any) -> bool:
    """Equal as `==` of Python says, except that expected floats have a tolerance and nan equals nan.

    So True equals 1 and 2.0 equals 2, a list never equals a tuple, and an expected int is exact. Floats are
    tolerant anywhere but in sets and as keys.
    """
    if type(expected) is float and type(claimed) in (int, float):
        return _close(expected, claimed)
    if isinstance(expected, (list, tuple)):
        return (
            type(claimed) is type(expected)
            and len(claimed) == len(expected)
            and all(same_value(*pair) for pair in zip(expected, claimed, strict=True))
        )
    if type(expected) is dict:
        return (
            type(claimed) is dict
            and claimed.keys() == expected.keys()
            and all(same_value(value, claimed[key]) for key, value in expected.items())
        )
    return claimed == expected


def _close(expected: float, claimed: float) -> bool:
    if math.isnan(expected):
        return claimed != claimed
    try:
        return math.isclose(expected, claimed, rel_tol=REL_TOL, abs_tol=ABS_TOL)
    except OverflowError:  # an integer beyond the range of floats
        return False


def same_output(expected: str, printed: str) -> bool:
    """Equal texts of a program: line by line, words compared, floats with tolerance.

    White space between words and at the end of lines is free, and so are empty lines at the end.
    """
    wanted = [line.split() for line in expected.rstrip().split("\n")]
    found = [line.split() for line in printed.rstrip().split("\n")]
    return [len(line) for line in wanted] == [len(line) for line in found] and all(
        _same_word(word, other)
        for line, others in zip(wanted, found, strict=True)
        for word, other in zip(line, others, strict=True)
    )


def _same_word(expected: str, printed: str) -> bool:
    if expected == printed:
        return True
    if "." not in expected:  # an integer or a name is exact
        return False
    try:
        return _close(float(expected), float(printed))
    except ValueError:
        return False
