"""What do the counts say, and how surely? Accuracy, pass@k and differences, with bootstrap intervals.

Shape suffixes: _P problems, _B resamples of the bootstrap.

Problems, not answers, are what another test set would hold others of: every interval resamples problems and
keeps each one's answers together. The answers' own noise is in the problems' means, so it is in the interval.
"""

from collections.abc import Sequence
from math import comb

import msgspec
import numpy as np
from numpy.typing import NDArray

RESAMPLES = 4000
LEVEL = 0.95
_SEED = 20260409
"""Equal counts give equal intervals, in every process."""
_AT_ONCE = 250

type Floats = NDArray[np.float64]
type Pairs = tuple[Sequence[float], Sequence[float]]
"""(before_P, after_P) of the same problems, which are drawn together."""


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """An estimate and the percentile interval around it, at LEVEL, which includes the estimate."""

    value: float
    low: float
    high: float


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """`after` minus `before` on the same problems."""

    change: Interval
    p_not_better: float
    """Share of the resamples in which `after` is not above `before`."""
    num_problems: int


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """Chance that at least one of k answers, drawn without replacement from those sampled, is right.

    Unbiased: 1 - C(n - c, k) / C(n, k) (Chen et al., arXiv 2107.03374, eq. 1). Needs n >= k.
    """
    assert 0 <= num_correct <= num_samples, f"{num_correct} of {num_samples}"
    assert 1 <= k <= num_samples, f"pass@{k} of {num_samples} answers"
    return 1.0 - comb(num_samples - num_correct, k) / comb(num_samples, k)


def mean_interval(values_P: Sequence[float]) -> Interval:
    """Mean over problems."""
    return stratified_interval([values_P])


def stratified_interval(strata: Sequence[Sequence[float]]) -> Interval:
    """Mean of the strata's means (domains, benchmarks): each is resampled by itself and weighs the same."""
    value = float(np.mean([np.mean(values_P) for values_P in strata]))
    return _interval(value, _means_of_strata(strata))


def share_interval(strata: Sequence[Sequence[float]]) -> Interval:
    """`stratified_interval` of values in [0, 1], where all right or all wrong is no certainty.

    A share of u^(1/n) makes all of n problems right with probability u. So where a stratum is all right, and
    resamples of it are too, u^(1/n) takes their place with u drawn evenly: the percentile of one such stratum
    alone is the exact bound of Clopper and Pearson (30 of 30: 0.884). All wrong: its mirror image.
    """
    value = float(np.mean([np.mean(values_P) for values_P in strata]))
    shares = [_resampled_shares(np.asarray(values_P, float), stream=n) for n, values_P in enumerate(strata)]
    return _interval(value, np.mean(shares, axis=0))


def ratio_interval(strata: Sequence[Pairs]) -> Interval | None:
    """Mean over strata of the mean of `after`, over that of `before`; None where a resample has 0 there."""
    strata_P2 = [np.stack([np.asarray(of_P, float) for of_P in pairs], axis=1) for pairs in strata]
    before_B, after_B = _means_of_strata(strata_P2).T
    if not before_B.all():
        return None
    before, after = np.mean([pairs_P2.mean(axis=0) for pairs_P2 in strata_P2], axis=0)
    return _interval(float(after / before), after_B / before_B)


def paired_difference(strata: Sequence[Pairs]) -> Difference:
    """Mean over strata of the mean of `after - before`."""
    differences = [np.asarray(after, float) - np.asarray(before, float) for before, after in strata]
    means_B = _means_of_strata(differences)
    value = float(np.mean([difference.mean() for difference in differences]))
    return Difference(
        change=_interval(value, means_B),
        p_not_better=float((means_B <= 0).mean()),
        num_problems=sum(len(difference) for difference in differences),
    )


def _means_of_strata(strata: Sequence[Sequence[float] | Floats]) -> Floats:
    """Mean over strata of their resampled means, shape _B or _B2; no two strata share a random stream."""
    means = [
        _resampled_means(np.asarray(values_P, float), stream=number) for number, values_P in enumerate(strata)
    ]
    return np.mean(means, axis=0)


def _resampled_shares(values_P: Floats, *, stream: int) -> Floats:
    first, num_problems = float(values_P[0]), len(values_P)
    if first not in (0.0, 1.0) or (values_P != first).any():
        return _resampled_means(values_P, stream=stream)
    random = np.random.default_rng((_SEED, stream, num_problems))
    solved_B = random.uniform(size=RESAMPLES) ** (1 / num_problems)
    return solved_B if first == 1.0 else 1.0 - solved_B


def _resampled_means(values_P: Floats, *, stream: int) -> Floats:
    """Mean of each resample over the first axis, shape _B or _B2; some resamples in memory at a time."""
    num_problems = len(values_P)
    assert num_problems > 0, "nothing to resample"
    random = np.random.default_rng((_SEED, stream, num_problems))
    means: list[Floats] = []
    for start in range(0, RESAMPLES, _AT_ONCE):
        drawn_BP = random.integers(num_problems, size=(min(_AT_ONCE, RESAMPLES - start), num_problems))
        means.append(values_P[drawn_BP].mean(axis=1))
    return np.concatenate(means)


def _interval(value: float, resampled_B: Floats) -> Interval:
    low, high = np.quantile(resampled_B, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value=value, low=min(value, float(low)), high=max(value, float(high)))
