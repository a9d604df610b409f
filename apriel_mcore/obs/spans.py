"""How long did each verb of the story take? Timed from outside: `@span("train")` on the function."""

import functools
import time
from collections import defaultdict
from collections.abc import Callable

_seconds: dict[str, float] = defaultdict(float)


def span[**P, R](name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Add the wall time of every call to the total of `name`."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def timed(*args: P.args, **kwargs: P.kwargs) -> R:
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                _seconds[name] += time.perf_counter() - start

        return timed

    return decorate


def drain() -> dict[str, float]:
    """Seconds by name since the last drain; called once a step."""
    totals = dict(_seconds)
    _seconds.clear()
    return totals
