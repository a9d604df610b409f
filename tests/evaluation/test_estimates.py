"""Counts to numbers: the estimators against their definitions, by enumeration and by simulation."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apriel_mcore.evaluation.estimates import (
    mean_interval,
    paired_difference,
    pass_at_k,
    ratio_interval,
    share_interval,
    stratified_interval,
)


@given(st.integers(1, 8).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_is_the_share_of_draws_with_a_right_answer(counts: tuple[int, int, int]) -> None:
    n, c, k = counts
    draws = list(combinations([True] * c + [False] * (n - c), k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, draws)) / len(draws))


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        solve_rates_P = random.beta(2, 3, size=40)
        found = mean_interval(list(random.binomial(4, solve_rates_P) / 4))
        covered += found.low <= 0.4 <= found.high
    assert 0.88 <= covered / 200 <= 0.99


def test_pairs_beat_the_spread_between_problems() -> None:
    random = np.random.default_rng(1)
    before_P = random.uniform(0, 0.9, size=60)
    after_P = before_P + 0.05 + random.normal(0, 0.02, size=60)
    found = paired_difference([(list(before_P), list(after_P))])
    assert found.change.low > 0.03
    assert found.p_not_better == 0.0
    apart = mean_interval(list(after_P)).low - mean_interval(list(before_P)).high
    assert apart < 0, "unpaired, the same data say nothing"


def test_no_change_is_no_evidence() -> None:
    values_P = [0.0, 1.0, 0.5, 0.5]
    found = paired_difference([(values_P, values_P)])
    assert (found.change.low, found.change.value, found.change.high) == (0.0, 0.0, 0.0)
    assert found.p_not_better == 1.0


def test_every_stratum_weighs_the_same() -> None:
    found = stratified_interval([[1.0] * 2, [0.0] * 100])
    assert found.value == 0.5
    assert (found.low, found.high) == (0.5, 0.5)


def test_equal_strata_are_resampled_apart() -> None:
    """Five equal strata average their noise out: the interval shrinks by sqrt(5)."""
    values_P = list(np.random.default_rng(2).integers(0, 2, size=64).astype(float))
    one, five = mean_interval(values_P), stratified_interval([values_P] * 5)
    assert (five.high - five.low) == pytest.approx((one.high - one.low) / 5**0.5, rel=0.2)


def test_all_right_is_not_certain() -> None:
    """Clopper and Pearson's bound of n of n at 95% is 0.025^(1/n)."""
    for n in (1, 30, 1000):
        right, wrong = share_interval([[1.0] * n]), share_interval([[0.0] * n])
        assert (right.value, right.high, wrong.value, wrong.low) == (1.0, 1.0, 0.0, 0.0)
        assert right.low == pytest.approx(0.025 ** (1 / n), rel=0.02 if n > 1 else 0.2)
        assert wrong.high == pytest.approx(1 - right.low)
    both = share_interval([[1.0] * 30, [0.0] * 30])
    assert both.low < both.value == 0.5 < both.high


def test_the_bound_of_all_right_covers_the_truth() -> None:
    """Shares near 1, where the bootstrap of 30 of 30 alone would never cover."""
    random = np.random.default_rng(3)
    found = [share_interval([(random.random(30) < 0.97).astype(float).tolist()]) for _ in range(300)]
    assert np.mean([one.low <= 0.97 <= one.high for one in found]) >= 0.9


def test_other_shares_are_resampled_as_ever() -> None:
    values_P = [1.0, 0.5, 0.0]
    assert share_interval([values_P]) == mean_interval(values_P)


def test_a_ratio_of_sums() -> None:
    found = ratio_interval([([100.0, 20.0], [50.0, 10.0])])
    assert found is not None
    assert (found.low, found.value, found.high) == (0.5, 0.5, 0.5)


def test_a_ratio_weighs_strata_the_same() -> None:
    """Means 10 -> 20 and 30 -> 20, however many problems each has."""
    found = ratio_interval([([10.0] * 50, [20.0] * 50), ([30.0], [20.0])])
    assert found is not None
    assert found.value == pytest.approx(40 / 40)


def test_there_is_no_ratio_to_nothing() -> None:
    assert ratio_interval([([0.0, 0.0], [5.0, 0.0])]) is None
    assert ratio_interval([([0.0, 9.0], [5.0, 5.0])]) is None, "some resample holds the first problem alone"
    unlike = ratio_interval([([0.0], [5.0]), ([10.0], [5.0])])
    assert unlike is not None and unlike.value == 1.0
