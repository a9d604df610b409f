"""What simulated runs of one split say, and how sure it is."""

import math

import msgspec
import pytest

from apriel_mcore.planning.outcome import draw, simulate
from apriel_mcore.planning.splits import own_split, splits
from tests.planning.asked import QUESTION, with_settings

SPLIT = splits(QUESTION, 64, max_lag=2.0)[0]


def test_the_simulation_keeps_the_bound_on_the_lag_and_repeats_itself():
    one = draw(QUESTION, SPLIT, max_lag=2.0, seed=0)
    assert one == draw(QUESTION, SPLIT, max_lag=2.0, seed=0)
    assert one.lag_max <= 3
    assert one.step_s >= SPLIT.train_s * 0.7


def test_an_outcome_is_the_mean_of_its_runs_and_says_how_they_spread():
    draws = [draw(QUESTION, SPLIT, max_lag=2.0, seed=seed) for seed in (1, 2)]
    found = simulate(QUESTION, SPLIT, max_lag=2.0, seeds=(1, 2))
    assert found.step_s == pytest.approx((draws[0].step_s + draws[1].step_s) / 2)
    assert found.step_spread_s == pytest.approx(abs(draws[0].step_s - draws[1].step_s) / math.sqrt(2))
    assert found.num_runs == 2


def test_the_wait_decides_the_bottleneck_only_beyond_its_error():
    found = simulate(QUESTION, SPLIT, max_lag=2.0, seeds=(1, 2))
    verdicts = []
    for share, spread in ((0.05, 0.01), (0.05, 0.2), (0.2, 0.2), (0.2, 0.01)):
        one = msgspec.structs.replace(found, wait_share=share, wait_spread=spread)
        verdicts.append(one.bottleneck)
    assert verdicts == ["trainer", "both", "both", "servers"]


def test_strictly_on_policy_waits_longer():
    on_policy, ahead = (draw(QUESTION, SPLIT, max_lag=lag, seed=0) for lag in (0.0, 4.0))
    assert on_policy.lag_max == 0
    assert on_policy.step_s > 1.1 * ahead.step_s


def test_few_groups_in_flight_slow_the_recipes_own_run():
    few = with_settings("rollout.max_groups_in_flight=4")
    slow, fast = (draw(one, own_split(one, max_lag=2.0), max_lag=2.0, seed=0) for one in (few, QUESTION))
    assert slow.step_s > 1.3 * fast.step_s


def test_without_a_bound_the_lag_is_that_of_the_groups_in_flight():
    found = draw(QUESTION, own_split(QUESTION, max_lag=math.inf), max_lag=math.inf, seed=0)
    assert found.lag_max > 3
