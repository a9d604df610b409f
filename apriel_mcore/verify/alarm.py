"""How long may one answer keep a judge busy before it counts as unparsable?

A soft limit inside the judge's own process; the hard one is the pool's SIGKILL (verify/grade.py), for
C code that no signal can interrupt. It counts CPU time: a busy machine must not fail an honest answer.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_AGAIN_S = 0.1  # an alarm raised inside a destructor is lost, so it repeats until somebody hears it


class OutOfTime(BaseException):
    """The time is up. Not an Exception: libraries that catch everything must not catch this."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises OutOfTime in the block after `seconds` of this process's CPU time. Main thread only."""

    def expire(signum: int, frame: FrameType | None) -> None:
        raise OutOfTime

    previous = signal.signal(signal.SIGPROF, expire)
    signal.setitimer(signal.ITIMER_PROF, seconds, _AGAIN_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, previous)
