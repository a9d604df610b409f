"""Does this program pass every test?

    text -> final answer -> last code block -> sandbox -> claimed values -> compared here with the expected

The solution's process gets code and inputs, never an expected value, so there is nothing in it to read or to
overload: a marker on stdout, an object that equals everything or a forged reply all end as a value that must
be right.

A test calls a function, or runs a program on a stdin, or is an `assert` of Python: asserts that state plain
calls and values become tests of the first kind (asserts.py), others run in a process of their own that only
sees what the solution returned (dialogue.py). A checker, where several outputs are right, does so too. These
processes do get expected values. They are siblings of the solution's: the server that forks them all never
reads what a run is about (sandbox_server.py).
"""

import functools
import json
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal

import msgspec

from apriel_mcore.errors import InputError, VerifierError
from apriel_mcore.types import Verdict
from apriel_mcore.verify import asserts, dialogue
from apriel_mcore.verify.answer import code_or_bare_text, final_answer, last_code_block
from apriel_mcore.verify.compare import Comparison
from apriel_mcore.verify.outcome import CORRECT, NO_ANSWER, failed, read_reference
from apriel_mcore.verify.sandbox import Job, Ran, Runner, SandboxLimits
from apriel_mcore.verify.values import ValueNotPlain, decode

Outcome = Literal["passed", "wrong", "timeout", "missing"]


class CodeTest(msgspec.Struct, frozen=True, kw_only=True):
    """One test: of a function (`args`), or of a program (`stdin`, and a text as `expected`)."""

    args: tuple[Any, ...] = ()
    """Argument trees as values.encode writes them."""
    stdin: str = ""
    expected: Any
    compare: Literal["value", "truth"] = "value"
    """truth: the value only has to be true or false as `expected` is."""


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """Gold of a code problem: `tests`, or `asserts`."""

    tests: tuple[CodeTest, ...] = ()
    asserts: str = ""
    """Python that asserts at top level, or in a function `check` of one parameter (HumanEval's form)."""
    entry_point: str = ""
    """Function `name` or method `Class.name`; empty: a whole program that reads stdin and prints."""
    bare: bool = False
    """Code without a fence counts: the whole answer."""
    rel_tol: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 1e-6
    """For expected floats."""
    sequences: Literal["strict", "lenient"] = "strict"
    """lenient: a tuple may stand for a list, for expected values that went through JSON."""
    checker: str = ""
    """Python with `check(given, expected, found) -> bool` instead of a comparison; `given` is the list of
    arguments or the stdin, `found` the value or the text printed. It must accept `expected` as `found`:
    where it fails on an answer, that tells a bad answer from a broken checker."""


def verify(reference: dict[str, Any], text: str, limits: SandboxLimits, runner: Runner) -> Verdict:
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
    if gold.asserts and not gold.tests:
        return dialogue.hold(gold.asserts, gold.entry_point, source, limits=limits, runner=runner)
    ran = runner.run(_job(gold, source), limits)
    if gold.checker:
        return _judge(gold, ran, _checked(gold, _first_replies(ran), limits, runner))
    return _judge(gold, ran, _outcome)


def self_check(reference: dict[str, Any], limits: SandboxLimits) -> None:
    """InputError unless there are tests, all readable, and within what the limits let through."""
    gold = _read(reference, limits)
    if not gold.tests and not gold.asserts:
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
    if gold.asserts:
        if gold.tests or gold.checker or not gold.entry_point:
            raise InputError("reference: asserts: need an entry_point, and neither tests nor a checker")
        return msgspec.structs.replace(gold, tests=_stated(gold.asserts, gold.entry_point))
    for number, test in enumerate(gold.tests):
        if gold.entry_point:
            continue
        if not isinstance(test.expected, str):
            raise InputError(f"reference: tests[{number}]: expected: a program's output is a text")
        if len(test.stdin.encode()) > limits.file_bytes:
            raise InputError(f"reference: tests[{number}]: stdin: longer than {limits.file_bytes} bytes")
    return gold


@functools.lru_cache(maxsize=4096)
def _stated(source: str, entry_point: str) -> tuple[CodeTest, ...]:
    """The tests that plain asserts state; none where one of them states more than a call and a value."""
    try:
        stated = asserts.read_asserts(source)
    except asserts.NotPlain:
        return ()
    if stated.callee not in (entry_point, "candidate"):
        raise InputError(f"reference: asserts: they call {stated.callee}, not {entry_point}")
    return msgspec.convert(stated.tests, tuple[CodeTest, ...])


def _job(gold: Reference, source: str) -> Job:
    inputs_N = [test.args if gold.entry_point else test.stdin for test in gold.tests]
    return Job(source=source, entry_point=gold.entry_point, inputs_N=inputs_N)


type _Judgement = Callable[[Reference, int, dict[str, Any]], Outcome]


def _judge(gold: Reference, ran: Ran, judgement: _Judgement) -> Verdict:
    for reply in ran.replies:
        if reply.get("compiled") is False:
            return failed("unparsable", f"does not compile: {reply.get('error')}")
    first = _first_replies(ran)
    outcomes: list[Outcome] = [
        judgement(gold, number, first[number]) if number in first else "missing"
        for number in range(len(gold.tests))
    ]
    if all(outcome == "passed" for outcome in outcomes):
        return CORRECT
    detail = ", ".join(_failures(outcomes, ran, first))[:500]
    if "timeout" in outcomes or (ran.ending in ("cpu", "wall") and "missing" in outcomes):
        return Verdict(score=0.0, success=False, status="timeout", detail=detail)
    return failed("wrong", detail)


def _checked(
    gold: Reference, first: dict[int, dict[str, Any]], limits: SandboxLimits, runner: Runner
) -> _Judgement:
    """What the problem's checker says, in a run of its own that starts when the solution has ended.

    Where it fails on an answer it is asked about the expected outputs, of all tests again, so that it has no
    more time for each: if it accepts that one, the checker works and the answer was nothing it could read.
    VerifierError otherwise: that is nobody's wrong answer.
    """
    found = dict(_found(gold, first))
    said = _ask_checker(gold, found, limits, runner)
    unsaid = [number for number in found if type(said[number]) is not bool]
    expected = {number: gold.tests[number].expected for number in found if unsaid}
    of_expected = _ask_checker(gold, expected, limits, runner)
    for number in unsaid:
        if of_expected[number] is not True:
            raise VerifierError(
                f"checker: test {number}: expected True or False, found {said[number]} for an answer, and "
                f"{of_expected[number]} for the expected output; let check return False for what it cannot "
                "read, or accept the expected output as found"
            )

    def judgement(gold: Reference, number: int, reply: dict[str, Any]) -> Outcome:
        if reply.get("ending") in ("cpu", "wall"):
            return "timeout"
        return "passed" if said.get(number) is True else "wrong"

    return judgement


def _found(gold: Reference, first: dict[int, dict[str, Any]]) -> Iterator[tuple[int, Any]]:
    """The tests that came to an output, with it as a tree."""
    for number in range(len(gold.tests)):
        reply = first.get(number, {})
        if gold.entry_point and "value" in reply:
            yield number, _believed(reply["value"])
        if not gold.entry_point and reply.get("exit") == 0:
            yield number, _believed(reply.get("stdout"))


def _ask_checker(
    gold: Reference, found: dict[int, Any], limits: SandboxLimits, runner: Runner
) -> dict[int, Any]:
    """By test: what the checker returned, or the name of what it raised, or how its run ended before that."""
    if not found:
        return {}
    inputs_N: list[Any] = []
    for number, tree in found.items():
        test = gold.tests[number]
        given = {"list": list(test.args)} if gold.entry_point else test.stdin
        inputs_N.append([given, test.expected, tree])
    ran = runner.run(Job(source=gold.checker, entry_point="check", inputs_N=inputs_N), limits)
    replies = _first_replies(ran)
    failure = next((reply["error"] for reply in ran.replies if reply.get("loaded") is False), ran.ending)
    in_its_place = {"error": failure}
    answers = [replies.get(position, in_its_place) for position in range(len(found))]
    return {
        number: reply["value"] if "value" in reply else reply.get("error")
        for number, reply in zip(found, answers, strict=True)
    }


def _believed(tree: Any) -> Any:
    """The tree if it is one; a forged reply must not break the checker's run."""
    try:
        decode(tree)
    except ValueNotPlain:
        return None
    return tree


def _first_replies(ran: Ran) -> dict[int, dict[str, Any]]:
    """By test; later replies to the same test are ignored, so a value cannot be guessed twice."""
    first: dict[int, dict[str, Any]] = {}
    for reply in ran.replies:
        test = reply.get("test")
        if type(test) is int:
            first.setdefault(test, reply)
    return first


def _outcome(gold: Reference, number: int, reply: dict[str, Any]) -> Outcome:
    test = gold.tests[number]
    if gold.entry_point:
        return "passed" if "value" in reply and _value_matches(gold, test, reply["value"]) else "wrong"
    if reply.get("ending") in ("cpu", "wall"):
        return "timeout"
    printed = reply.get("stdout")
    right = (
        reply.get("exit") == 0
        and isinstance(printed, str)
        and _comparison(gold).texts(test.expected, printed)
    )
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


def _value_matches(gold: Reference, test: CodeTest, claimed_tree: Any) -> bool:
    if test.compare == "truth":
        return _truth(claimed_tree) is test.expected
    # A right value is about as long as the expected one. Anything much longer is wrong already, and is not
    # decoded: a set of a hundred thousand colliding integers would cost minutes to build.
    if len(json.dumps(claimed_tree)) > 1024 + 16 * len(json.dumps(test.expected)):
        return False
    try:
        claimed = decode(claimed_tree)
    except ValueNotPlain:
        return False
    return _comparison(gold).values(decode(test.expected), claimed)


def _comparison(gold: Reference) -> Comparison:
    return Comparison(rel_tol=gold.rel_tol, lenient=gold.sequences == "lenient")


def _truth(tree: Any) -> bool:
    """Of the value that a tree stands for, without building it."""
    if isinstance(tree, dict) and len(tree) == 1:
        ((tag, body),) = tree.items()
        return True if tag in ("int", "float") else bool(body)
    return bool(tree)
