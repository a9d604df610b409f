"""Which texts say nearly what an earlier one says? Those that share most of their runs of words with it.

    text -> set of runs -> ranks, rarest first -> the first few -> index -> candidates -> exact share
                                                  (prefix)

Exact, by prefix filtering (Chaudhuri et al. 2006; positions as in PPJoin, Xiao et al. 2008): two sets A, B
with |A & B| / |A | B| >= t have |A & B| >= t * max(|A|, |B|). Leave out the last t * |A| - 1 runs of A in
any order that is the same for all sets, and likewise of B: what is left has a run in common. With the rarest
first few other sets have one too.

Shape suffix: _R runs of one text.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from math import ceil
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from apriel_mcore.data.ngrams import runs, words_and_marks

type Ranks = NDArray[np.int64]

_ROUNDING = 1e-9
"""Of threshold * size: a prefix may be a run too long, never one too short."""


class Asked(NamedTuple):
    """A text, and what must be equal before its words are compared at all."""

    context: str
    text: str


class Near(NamedTuple):
    """The earlier text that a text repeats."""

    number: int
    share: float
    """Runs in both, of the runs in either; in [threshold, 1]."""


def near_duplicates(asked: Sequence[Asked], *, ngram: int, threshold: float) -> dict[int, Near]:
    """Numbers of the texts that repeat a kept one before them, in order, with the first one that they repeat.

    A text shorter than `ngram` words has one run, the whole. What repeats a dropped text alone is kept: any
    two of the kept differ, and a chain of small changes is not taken for one text.
    """
    ranks, num_lonely = _rarest_first([_runs(text, ngram) for text in asked])
    index: dict[int, list[tuple[int, int]]] = defaultdict(list)  # run -> kept texts, its place in each
    found: dict[int, Near] = {}
    for number, ranks_R in enumerate(ranks):
        prefix = list(_prefix(ranks_R, threshold, num_lonely))
        candidates = _candidates(prefix, index, ranks, number, threshold)
        near = [Near(other, share(ranks_R, ranks[other])) for other in candidates]
        near = [one for one in near if one.share >= threshold]
        if near:
            found[number] = min(near)
            continue
        for place, run in prefix:
            index[run].append((number, place))
    return found


def share(one_R: Ranks, other_R: Ranks) -> float:
    """Runs in both, of the runs in either; 0 where neither has any."""
    both = len(np.intersect1d(one_R, other_R, assume_unique=True))
    return both / max(1, len(one_R) + len(other_R) - both)


def _runs(asked: Asked, ngram: int) -> NDArray[np.uint64]:
    """64 bits for each run: a clash among ten million of them has a chance of 3 in a million."""
    words = words_and_marks(asked.text)
    context = blake2b(asked.context.encode()).hexdigest()
    found = {
        int.from_bytes(blake2b(f"{context} {run}".encode(), digest_size=8).digest())
        for run in runs(words, min(ngram, len(words)))
        if run
    }
    return np.fromiter(found, np.uint64, len(found))


def _rarest_first(runs: Sequence[NDArray[np.uint64]]) -> tuple[list[Ranks], int]:
    """Each text's runs as ascending ranks of how many texts have them; how many are of one text alone."""
    if not runs:
        return [], 0
    _, position, count = np.unique(np.concatenate(runs), return_inverse=True, return_counts=True)
    rank = np.empty(len(count), np.int64)
    rank[np.argsort(count, kind="stable")] = np.arange(len(count))
    ends = np.cumsum([len(found) for found in runs])[:-1]
    return [np.sort(ranks_R) for ranks_R in np.split(rank[position], ends)], int((count == 1).sum())


def _prefix(ranks_R: Ranks, threshold: float, num_lonely: int) -> Iterator[tuple[int, int]]:
    """(place, run) of the rarest runs, one of which every near text has in its own; none that is lonely."""
    length = len(ranks_R) - ceil(threshold * len(ranks_R) - _ROUNDING) + 1
    for place, run in enumerate(ranks_R[:length].tolist()):
        if run >= num_lonely:
            yield place, run


def _candidates(
    prefix: Sequence[tuple[int, int]],
    index: dict[int, list[tuple[int, int]]],
    ranks: Sequence[Ranks],
    number: int,
    threshold: float,
) -> list[int]:
    """Kept texts that share a run of the prefix and whose sizes and places leave room for enough of them.

    The first run in both is at some place of each: no more can be in both than stand there and behind.
    """
    size = len(ranks[number])
    seen: set[int] = set()
    found: list[int] = []
    for place, run in prefix:
        for other, other_place in index.get(run, ()):
            if other in seen:
                continue
            seen.add(other)
            other_size = len(ranks[other])
            most = min(size - place, other_size - other_place)
            if most / (size + other_size - most) >= threshold:
                found.append(other)
    return found
