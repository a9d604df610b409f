"""How long may one answer keep a judge busy before it counts as unparsable?

A soft limit inside the judge's own process; the hard one is the pool's SIGKILL (verify/grade.py), for
C code that no signal can interrupt. It counts CPU time: a busy machine must not fail an honest answer.
"""

import signal
from functools import cache
from types import FrameType, TracebackType

_AGAIN_S = 0.1  # an alarm raised inside a destructor is lost, so it repeats until somebody hears it


class OutOfTime(BaseException):
    """The time is up. Not an Exception: libraries that catch everything must not catch this."""


class time_limit:
    """Raises OutOfTime in the block after `seconds` of this process's CPU time. Main thread only.

    The process's handler of SIGPROF is ours from the first use on: setting and restoring it around every
    answer took longer than most judges.
    """

    __slots__ = ("_seconds",)

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __enter__(self) -> None:
        _listen()
        signal.setitimer(signal.ITIMER_PROF, self._seconds, _AGAIN_S)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)


@cache
def _listen() -> None:
    def expire(signum: int, frame: FrameType | None) -> None:
        raise OutOfTime

    signal.signal(signal.SIGPROF, expire)
