"""A judge's process: one request at a time over a private socket, until the pool hangs up or kills it.

Started by the pool as `python -m apriel_mcore.verify.worker FD PARENT CONFIG`: the socket's descriptor, the
pool's process id, and the recipe's verify section as JSON. Model text is parsed here and nowhere else;
a parser that hangs or eats memory takes this process down, not the run.
"""

import ctypes
import gc
import os
import resource
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import msgspec

from apriel_mcore.config.schema import Verify
from apriel_mcore.errors import InputError, Starved
from apriel_mcore.types import Verdict
from apriel_mcore.verify import wire
from apriel_mcore.verify.outcome import read_reference, sendable

_PR_SET_PDEATHSIG = 1
_NICE = 10
_SANDBOX_SHARE = 0.5  # of the deadline: a program that runs too long is judged so before the pool steps in
_GIVE_UP_SHARE = (
    0.95  # the sandbox says itself that the host starved a run; threads can stretch one by their CPU
)


def _nothing() -> None:
    pass


class Judge(NamedTuple):
    """One verifier's entry points."""

    verify: Callable[[dict[str, Any], str], Verdict]
    self_check: Callable[[dict[str, Any]], None]
    warm_up: Callable[[], None] = _nothing
    """Imports, on any thread."""
    start: Callable[[], None] = _nothing
    """What must happen on the main thread, and once more in a successor."""


class _Gold(msgspec.Struct, frozen=True):
    """An answer known to be right, as a model would write it; most references derive theirs."""

    gold: str = ""


Judges = Mapping[str, Callable[[Verify], Judge]]


def _math(config: Verify) -> Judge:
    from apriel_mcore.verify import math

    def verify(reference: dict[str, Any], text: str) -> Verdict:
        return math.verify(reference, text, tolerance=config.math_tolerance)

    return Judge(verify, math.self_check, math.warm_up)


def _instruction(config: Verify) -> Judge:
    from apriel_mcore.verify.instruction import judge

    return Judge(judge.verify, judge.self_check, judge.warm_up)


def _logic(config: Verify) -> Judge:
    from apriel_mcore.verify import logic

    def verify(reference: dict[str, Any], text: str) -> Verdict:
        return logic.verify(reference, text, solved_at=config.logic_solved_at)

    return Judge(verify, logic.self_check, logic.warm_up)


def _puzzles(config: Verify) -> Judge:
    from apriel_mcore.verify.puzzles import judge

    return Judge(judge.verify, judge.self_check, judge.warm_up)


def _calls(config: Verify) -> Judge:
    from apriel_mcore.verify import calls

    return Judge(calls.verify, calls.self_check, calls.warm_up)


def _code(config: Verify) -> Judge:
    from apriel_mcore.verify import code
    from apriel_mcore.verify.sandbox import SandboxLimits
    from apriel_mcore.verify.sandbox_choice import runner_for

    limits = SandboxLimits(
        cpu_s=config.code_cpu_s,
        wall_s=_SANDBOX_SHARE * config.deadline_s,
        give_up_s=_GIVE_UP_SHARE * config.deadline_s,
        memory_mib=config.code_memory_mib,
    )

    def verify(reference: dict[str, Any], text: str) -> Verdict:
        return code.verify(reference, text, limits, runner_for(config.sandbox))

    def self_check(reference: dict[str, Any]) -> None:
        code.self_check(reference, limits)

    def start() -> None:  # a sandbox ends with the thread that started it
        runner_for(config.sandbox)

    return Judge(verify, self_check, start=start)


def _choice(config: Verify) -> Judge:
    from apriel_mcore.verify import choice

    return Judge(choice.verify, choice.self_check)


def _text(config: Verify) -> Judge:
    from apriel_mcore.verify import text

    return Judge(text.verify, text.self_check)


JUDGES: Judges = {
    "math": _math,
    "text": _text,
    "code": _code,
    "instruction": _instruction,
    "logic": _logic,
    "puzzles": _puzzles,
    "calls": _calls,
    "choice": _choice,
}


def main(judges: Judges = JUDGES) -> None:
    """Serves until the other end of the socket closes."""
    descriptor, parent = int(sys.argv[1]), int(sys.argv[2])
    config = msgspec.json.decode(sys.argv[3], type=Verify)
    die_with(parent)
    memory_bytes = config.worker_memory_mib << 20
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.set_inheritable(descriptor, False)  # the sandbox's children do not get it
    os.dup2(2, 1)
    with socket.socket(fileno=descriptor) as channel:
        serve(channel, config, judges)


def serve(channel: socket.socket, config: Verify, judges: Judges) -> None:
    """Answers requests in order until the other end closes."""
    loaded: dict[str, Judge] = {}
    with channel.makefile("rb") as requests:
        while header := requests.read(wire.HEADER.size):
            (size,) = wire.HEADER.unpack(header)
            request = wire.decode_request(requests.read(size))
            channel.sendall(_answer(request, config, judges, loaded))


def die_with(parent: int) -> None:
    """The kernel kills this process when its parent dies, also by SIGKILL."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:  # it died before we asked
        sys.exit(1)


def _answer(request: wire.Request, config: Verify, judges: Judges, loaded: dict[str, Judge]) -> bytes:
    """The reply as it is sent; what cannot be sent is a judge that broke, not a process that died."""
    try:
        return wire.encode(_judge(request, config, judges, loaded))
    except InputError as error:
        return wire.encode(wire.Refused(sendable(str(error))))
    except Starved as error:
        return wire.encode(wire.Broken(sendable(str(error)), starved=True))
    except Exception as error:  # this process's half of the seam in verify/grade.py, which counts it
        traceback.print_exc()
        return wire.encode(wire.Broken(sendable(f"{type(error).__name__}: {error}"[:500])))


def _judge(request: wire.Request, config: Verify, judges: Judges, loaded: dict[str, Judge]) -> wire.Reply:
    name = request.verifier
    if name not in judges:
        raise InputError(f"unknown verifier {name!r}; known are {', '.join(judges)}")
    if name not in loaded:
        aside = isinstance(request, wire.Load) and request.aside
        loaded[name] = _load_aside(judges[name], config) if aside else _load(judges[name], config)
    judge = loaded[name]
    match request:
        case wire.Load():
            judge.start()
        case wire.Check(reference=reference):
            judge.self_check(reference)
            _check_gold(judge, reference)
        case wire.Grade(reference=reference, text=text):
            return wire.Graded(judge.verify(reference, text))
    return wire.Done()


def _load(make: Callable[[Verify], Judge], config: Verify) -> Judge:
    judge = make(config)
    judge.warm_up()
    gc.collect()
    gc.freeze()  # a library's hundred thousands of objects are not visited again on the time of an answer
    return judge


def _load_aside(make: Callable[[Verify], Judge], config: Verify) -> Judge:
    """On a thread that yields the cores; this one, which cannot be nice only for a while, stays as it is."""
    with ThreadPoolExecutor(max_workers=1, initializer=os.nice, initargs=(_NICE,)) as thread:
        return thread.submit(_load, make, config).result()


def _check_gold(judge: Judge, reference: dict[str, Any]) -> None:
    gold = read_reference(reference, _Gold).gold
    if gold:
        verdict = judge.verify(reference, gold)
        if not verdict.success:
            raise InputError(
                f"reference: the gold answer does not verify: {verdict.detail or verdict.status}"
            )


if __name__ == "__main__":
    main()
