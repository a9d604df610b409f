"""Asserts that state more than a call and a value: the tests run in one process, the solution in another.

    tests' process --"what is candidate(3)?"--> here --> solution's process
          ^-------------- the plain value ------'

The tests are run from their beginning until they make a call whose value is not known yet; that call goes to
the solution, in a run of its own, and the tests start again with one answer more. The solution's process is
never the tests' and never descends from it (sandbox_server.py), and what it returns reaches them as a plain
value of an exact type.
"""

from typing import Any

import msgspec

from apriel_mcore.errors import InputError, VerifierError
from apriel_mcore.types import Verdict
from apriel_mcore.verify.outcome import CORRECT, failed
from apriel_mcore.verify.sandbox import Job, Ran, Runner, SandboxLimits

MAX_CALLS = 256

_TESTS = """
import random

class Ask(BaseException):
    pass

def attempt(tests, name, answers):
    known = iter(answers)
    def candidate(*args):
        for kind, value in known:
            if kind == "value":
                return value
            raise RuntimeError(value)
        raise Ask(list(args))
    random.seed(0)
    names = {name: candidate, "candidate": candidate, "__name__": "tests"}
    try:
        exec(compile(tests, "<tests>", "exec"), names)
        if "check" in names:
            names["check"](candidate)
    except Ask as ask:
        return ["ask", ask.args[0]]
    except Exception as error:
        return ["failed", type(error).__name__]
    return ["passed"]
"""


def hold(tests: str, entry_point: str, source: str, *, limits: SandboxLimits, runner: Runner) -> Verdict:
    """The verdict of a test text on a solution; both share one wall-clock budget.

    InputError when the tests make more than MAX_CALLS calls; VerifierError when they break without the
    solution. What they choke on later is what the solution returned.
    """
    answers: list[dict[str, Any]] = []
    left_s = limits.wall_s
    while len(answers) <= MAX_CALLS:
        args = [tests, entry_point.rpartition(".")[2], {"list": answers}]
        step = runner.run(Job(source=_TESTS, entry_point="attempt", inputs_N=[args]), limits)
        match _value(step):
            case {"list": ["passed"]}:
                return CORRECT
            case {"list": ["failed", str(error)]}:
                return failed("wrong", f"asserts: {error} after {len(answers)} calls")
            case {"list": ["ask", {"list": list(asked)}]}:
                pass
            case _ if not answers:
                raise VerifierError(f"asserts: the tests ended before they called anything ({step.ending})")
            case _:
                return failed("wrong", f"asserts: the tests ended without a result ({step.ending})")
        job = Job(source=source, entry_point=entry_point, inputs_N=[asked])
        ran = runner.run(job, msgspec.structs.replace(limits, wall_s=left_s))
        left_s -= ran.felt_s
        if ran.ending in ("cpu", "wall") or left_s <= 0:
            return Verdict(score=0.0, success=False, status="timeout", detail=f"call {len(answers)}")
        if any(reply.get("compiled") is False for reply in ran.replies):
            return failed("unparsable", "does not compile")
        answers.append(_answer(ran))
    raise InputError(f"reference: asserts: more than {MAX_CALLS} calls of {entry_point}")


def _value(ran: Ran) -> Any:
    return next((reply.get("value") for reply in ran.replies if reply.get("test") == 0), None)


def _answer(ran: Ran) -> dict[str, Any]:
    """What a call came to, as a tree: the value, or the name of what it raised."""
    for reply in ran.replies:
        if reply.get("test") == 0 and "value" in reply:
            return {"list": ["value", reply["value"]]}
        if "error" in reply:
            return {"list": ["error", str(reply["error"])]}
    return {"list": ["error", "no reply"]}
