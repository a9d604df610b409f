"""How are the judges doing: what became of the jobs of each domain, how long they took, how many wait?

Written on the event loop, read from any thread.
"""

import time
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from apriel_mcore.errors import Starved, VerifierError

_WINDOW = 2048
"""Last jobs of a domain that the percentiles speak of."""


class Counts(msgspec.Struct):
    """What became of one domain's jobs; a job that was tried again counts each time it broke."""

    graded: int = 0
    crashed: int = 0
    timed_out: int = 0
    starved: int = 0
    unreachable: int = 0
    """Remote only: a service could not be reached or would not answer."""
    retried: int = 0
    lost: int = 0
    """Ended without a verdict."""


class TimedOut(VerifierError):
    """No verdict within the deadline."""


class Unreachable(VerifierError):
    """A service did not answer, by no fault of the request."""


class Tally:
    """Counts and latencies by domain, and the queue."""

    def __init__(self) -> None:
        self._counts: defaultdict[str, Counts] = defaultdict(Counts)
        self._seconds: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_WINDOW))
        self.waiting = 0

    @contextmanager
    def job(self, domain: str, *, timed: bool) -> Iterator[Counts]:
        """Around one job, its waiting included; what it raises is counted as a loss.

        Not timed: it stays out of the percentiles, as the crowd of self-checks at the start must.
        """
        counts, start = self._counts[domain], time.monotonic()
        try:
            yield counts
        except VerifierError:
            counts.lost += 1
            raise
        finally:
            if timed:
                self._seconds[domain].append(time.monotonic() - start)

    @contextmanager
    def queue(self) -> Iterator[None]:
        """Around the wait for a place."""
        self.waiting += 1
        try:
            yield
        finally:
            self.waiting -= 1

    def counts(self) -> dict[str, Counts]:
        """Jobs per domain so far."""
        return {domain: msgspec.structs.replace(counts) for domain, counts in list(self._counts.items())}

    def metrics(self) -> dict[str, float]:
        """`queue`, and for each domain its counts and `p50_s`, `p99_s` of the last jobs, waiting included."""
        numbers = {"queue": float(self.waiting)}
        for domain, counts in self.counts().items():
            numbers |= {
                f"{domain}.{name}": float(value) for name, value in msgspec.structs.asdict(counts).items()
            }
            if seconds := sorted(self._seconds[domain]):
                numbers[f"{domain}.p50_s"] = seconds[len(seconds) // 2]
                numbers[f"{domain}.p99_s"] = seconds[len(seconds) * 99 // 100]
        return numbers


def note(counts: Counts, error: VerifierError) -> None:
    """Count what broke an attempt."""
    match error:
        case Starved():
            counts.starved += 1
        case TimedOut():
            counts.timed_out += 1
        case Unreachable():
            counts.unreachable += 1
        case _:
            counts.crashed += 1
