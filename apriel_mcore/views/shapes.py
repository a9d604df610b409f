"""How are lengths and difficulty distributed, over time and by domain, and what did each server do?

Counts over the trained rollouts of a Shelf, by buckets of steps as wide as a power of two. Shape suffixes:
_N rollouts, _K groups, _B buckets of steps, _L bins of length or levels of difficulty.
"""

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from apriel_mcore.views.shelf import Shelf

MAX_BUCKETS = 48
LENGTH_BINS = 24
LEVEL_EDGES = (0.0, 1e-9, 0.25, 0.5, 0.75, 1.0 - 1e-9, 1.0 + 1e-9)
"""Solve rates: none, to a quarter, to a half, to three quarters, below all, all."""
RECENT_STEPS = 50

type Counts = list[list[int]]


class Shapes(msgspec.Struct, frozen=True, kw_only=True):
    """Distributions by domain; a row of counts is a bucket of steps."""

    width: int
    first_B: list[int]
    length_edges: list[float]
    lengths: dict[str, Counts]
    """Rollouts by bucket and bin of length."""
    truncated: dict[str, list[int]]
    """Rollouts that were cut at their budget, by bucket."""
    difficulty: dict[str, Counts]
    """Groups by bucket and level of solve rate (LEVEL_EDGES)."""


def shapes(shelf: Shelf, last_step: int) -> Shapes:
    """Distributions over the steps up to `last_step`."""
    width = 1
    while last_step >= width * MAX_BUCKETS:
        width *= 2
    there_N = shelf.column("step") <= last_step
    bucket_N = shelf.column("step")[there_N] // width
    buckets = np.unique(bucket_N)
    place_N = np.searchsorted(buckets, bucket_N)
    tokens_N = shelf.column("tokens")[there_N]
    edges = _length_edges(tokens_N)
    domain_N = shelf.column("domain")[there_N]
    group_N, success_N = shelf.column("group")[there_N], shelf.column("success")[there_N]
    truncated_N = shelf.column("truncated")[there_N]
    lengths: dict[str, Counts] = {}
    truncated: dict[str, list[int]] = {}
    difficulty: dict[str, Counts] = {}
    for code, domain in enumerate(shelf.words["domain"]):
        mine_N = domain_N == code
        lengths[domain] = _counts(place_N[mine_N], tokens_N[mine_N], len(buckets), edges)
        cut = np.bincount(place_N[mine_N & truncated_N], minlength=len(buckets))
        truncated[domain] = cut.tolist()
        rates_K, place_K = _solve_rates(group_N[mine_N], success_N[mine_N], place_N[mine_N])
        difficulty[domain] = _counts(place_K, rates_K, len(buckets), np.array(LEVEL_EDGES))
    return Shapes(
        width=width,
        first_B=[max(1, int(bucket) * width) for bucket in buckets],
        length_edges=edges.tolist(),
        lengths=lengths,
        truncated=truncated,
        difficulty=difficulty,
    )


def _length_edges(tokens_N: NDArray[np.int32]) -> NDArray[np.float64]:
    longest = max(2, int(tokens_N.max())) if len(tokens_N) else 2
    return np.unique(np.round(np.geomspace(1, longest + 1, LENGTH_BINS + 1)))


def _counts(
    place: NDArray[np.intp], values: NDArray[Any], num_buckets: int, edges: NDArray[np.float64]
) -> Counts:
    bins = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    flat = np.bincount(place * (len(edges) - 1) + bins, minlength=num_buckets * (len(edges) - 1))
    return flat.reshape(num_buckets, len(edges) - 1).tolist()


def _solve_rates(
    group_N: NDArray[np.int32], success_N: NDArray[np.bool_], place_N: NDArray[np.intp]
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Solve rate and bucket of each group."""
    _, first_K, size_K = np.unique(group_N, return_index=True, return_counts=True)
    if not len(first_K):
        return np.zeros(0), place_N
    return np.add.reduceat(success_N.astype(np.float64), first_K) / size_K, place_N[first_K]


def servers(shelf: Shelf, last_step: int) -> list[dict[str, Any]]:
    """What each server answered, in all and of late; `slowness` compares its time a token with the fleet's.

    Slowness is the median over a server's recent rollouts of seconds a token, over the same median of all
    recent ones; 1 is like the others.
    """
    step_N, server_N = shelf.column("step"), shelf.column("server")
    there_N = step_N <= last_step
    recent_N = there_N & (step_N > last_step - RECENT_STEPS)
    pace_N = shelf.column("seconds") / np.maximum(1, shelf.column("tokens"))
    usual = float(np.median(pace_N[recent_N])) if recent_N.any() else 0.0
    rows: list[dict[str, Any]] = []
    for code, name in enumerate(shelf.words["server"]):
        mine_N = there_N & (server_N == code)
        late_N = recent_N & (server_N == code)
        if not mine_N.any():
            continue
        pace = float(np.median(pace_N[late_N])) if late_N.any() else 0.0
        rows.append(
            {
                "server": name,
                "rollouts": int(mine_N.sum()),
                "tokens": int(shelf.column("tokens")[mine_N].sum()),
                "recent": int(late_N.sum()),
                "tokens_mean": round(float(shelf.column("tokens")[mine_N].mean()), 1),
                "seconds_median": round(float(np.median(shelf.column("seconds")[mine_N])), 3),
                "slowness": round(pace / usual, 3) if usual else 0.0,
                "last_step": int(step_N[mine_N].max()),
                "lag_mean": round(float(shelf.column("lag")[mine_N].mean()), 2),
            }
        )
    return rows
