"""What is each process doing, since when, and how long did it take? Timed from outside: `@span("train")`.

    @span (the story's verbs)  --totals by name--> the step event
    timed (anything)           --Span-----------> the timeline of this process; while it lasts, `doing()`

A verb inside a verb belongs to the timeline alone: the totals of a step add up to its time.
"""

import functools
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import msgspec

STORY = "trainer"
"""The lane of the story's verbs."""
_KEPT = 500_000
"""Where no step drains them (an evaluation alone), the oldest go."""


class Span(msgspec.Struct, gc=False, frozen=True, array_like=True):
    """Something that is done, or has been since `start`."""

    name: str
    lane: str
    """Who does it: the trainer, a server, the judges of a domain."""
    start: float
    """Seconds since the epoch."""
    seconds: float = 0.0
    """0 while it lasts."""


class Drained(msgspec.Struct, frozen=True):
    """What ended since the last drain."""

    totals: dict[str, float]
    """Seconds of the story's outermost verbs, by name."""
    spans: list[Span]


_lock = threading.Lock()
_totals: dict[str, float] = defaultdict(float)
_ended: deque[Span] = deque(maxlen=_KEPT)
_open: dict[int, Span] = {}
_ids = count()
_depth = threading.local()


def span[**P, R](name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A verb of the story: time every call, on the timeline and, if outermost, in the totals."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def timed_call(*args: P.args, **kwargs: P.kwargs) -> R:
            outermost = not vars(_depth).get("inside", False)
            _depth.inside = True
            start = time.perf_counter()
            try:
                with timed(name, lane=STORY):
                    return function(*args, **kwargs)
            finally:
                _depth.inside = not outermost
                if outermost:
                    with _lock:
                        _totals[name] += time.perf_counter() - start

        return timed_call

    return decorate


@contextmanager
def timed(name: str, *, lane: str) -> Iterator[None]:
    """Put what happens inside on the timeline; from any thread or coroutine."""
    number, start, begun = next(_ids), time.perf_counter(), time.time()
    with _lock:
        _open[number] = Span(name, lane, begun)
    try:
        yield
    finally:
        with _lock:
            del _open[number]
            _ended.append(Span(name, lane, begun, time.perf_counter() - start))


def doing() -> list[Span]:
    """What goes on now, in the order begun."""
    with _lock:
        return list(_open.values())


def drain() -> Drained:
    """Totals and spans since the last drain; called once a step."""
    with _lock:
        drained = Drained(dict(_totals), list(_ended))
        _totals.clear()
        _ended.clear()
    return drained
