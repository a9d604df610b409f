"""How are ways of doing the same work compared fairly? In turn, and as ratios within a round."""

import statistics
import time
from collections.abc import Callable, Mapping


def interleave(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each way in each of `rounds` rounds, after one that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, work in ways.items():
            start = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - start)
    return {name: found[1:] for name, found in seconds.items()}


def ratio(above: list[float], below: list[float]) -> float:
    """Median of the ratios within a round: what slows a whole round down cancels out."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))
