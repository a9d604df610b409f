"""Advantages against their definitions, the zero-advantage filter, and the samples of a group."""

from statistics import mean, stdev
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apriel_mcore.config.schema import Advantage
from apriel_mcore.loss.advantage import advantages, has_signal, keeps, to_samples
from apriel_mcore.types import Finish, Group, Problem, Rollout, ShapedReward, Verdict

Baseline = Literal["leave_one_out", "group_mean"]
baselines = st.sampled_from(["leave_one_out", "group_mean"])
rewards = st.lists(st.floats(-1, 1).map(lambda reward: round(reward, 4)), min_size=2, max_size=16)


def test_leave_one_out_of_one_success_in_four() -> None:
    result_G = advantages((1.0, 0.0, 0.0, 0.0), baseline="leave_one_out", divide_by_std=False)
    assert result_G == pytest.approx((1.0, -1 / 3, -1 / 3, -1 / 3))


@pytest.mark.parametrize("baseline", ["leave_one_out", "group_mean"])
@pytest.mark.parametrize("divide_by_std", [False, True])
def test_a_rollout_alone_has_no_advantage(baseline: Baseline, divide_by_std: bool) -> None:
    assert advantages((0.7,), baseline=baseline, divide_by_std=divide_by_std) == (0.0,)


@given(rewards)
def test_leave_one_out_is_the_distance_to_the_mean_of_the_others(rewards_G: list[float]) -> None:
    expected_G = [reward - mean(rewards_G[:i] + rewards_G[i + 1 :]) for i, reward in enumerate(rewards_G)]
    result_G = advantages(rewards_G, baseline="leave_one_out", divide_by_std=False)
    assert result_G == pytest.approx(expected_G, abs=1e-12)


@given(rewards, baselines)
def test_dividing_by_std_is_the_sample_deviation_plus_epsilon(
    rewards_G: list[float], baseline: Baseline
) -> None:
    plain_G = advantages(rewards_G, baseline=baseline, divide_by_std=False)
    expected_G = [advantage / (stdev(rewards_G) + 1e-4) for advantage in plain_G]
    result_G = advantages(rewards_G, baseline=baseline, divide_by_std=True)
    assert result_G == pytest.approx(expected_G, abs=1e-9)


def test_group_norm_by_hand() -> None:
    result_G = advantages((1.0, 0.0), baseline="group_mean", divide_by_std=True)
    assert result_G == pytest.approx((0.5 / (0.5**0.5 + 1e-4), -0.5 / (0.5**0.5 + 1e-4)))


@given(rewards, baselines, st.booleans())
def test_advantages_sum_to_zero_and_keep_the_order_of_rewards(
    rewards_G: list[float], baseline: Baseline, divide_by_std: bool
) -> None:
    result_G = advantages(rewards_G, baseline=baseline, divide_by_std=divide_by_std)
    assert sum(result_G) == pytest.approx(0.0, abs=1e-9)
    ranked_G = [advantage for _, advantage in sorted(zip(rewards_G, result_G, strict=True))]
    assert ranked_G == sorted(ranked_G)


@given(rewards, baselines, st.floats(-1, 1))
def test_a_constant_added_to_all_rewards_changes_nothing(
    rewards_G: list[float], baseline: Baseline, constant: float
) -> None:
    moved_G = [reward + constant for reward in rewards_G]
    assert advantages(moved_G, baseline=baseline, divide_by_std=False) == pytest.approx(
        advantages(rewards_G, baseline=baseline, divide_by_std=False), abs=1e-12
    )


# --- filter ----------------------------------------------------------------------------------------


@given(rewards)
def test_signal_means_that_some_advantage_is_not_zero(rewards_G: list[float]) -> None:
    largest = max(map(abs, advantages(rewards_G, baseline="leave_one_out", divide_by_std=False)))
    assert has_signal(rewards_G, min_std=0.0) == (largest > 1e-6)


@pytest.mark.parametrize(("spread", "expected"), [(0.0, False), (0.9e-6, False), (1.1e-6, True), (1.0, True)])
def test_the_threshold_of_signal(spread: float, expected: bool) -> None:
    assert has_signal((0.0, spread, 0.0), min_std=0.0) is expected


def test_rounding_noise_is_no_signal() -> None:
    assert not has_signal((0.1 + 0.2, 0.3, 0.3), min_std=0.0)


def test_the_filter_on_shaped_keeps_what_the_filter_on_task_drops() -> None:
    all_correct_G = [
        ShapedReward(task=1.0, length=-0.5, factor=1.0),
        ShapedReward(task=1.0, length=0.0, factor=1.0),
    ]
    assert keeps(all_correct_G, "shaped_reward", min_std=0.0)
    assert not keeps(all_correct_G, "task_reward", min_std=0.0)


def test_the_filter_on_task_keeps_what_the_penalty_evens_out() -> None:
    evened_out_G = [
        ShapedReward(task=1.0, length=-1.0, factor=1.0),
        ShapedReward(task=0.0, length=0.0, factor=1.0),
    ]
    assert not keeps(evened_out_G, "shaped_reward", min_std=0.0)
    assert keeps(evened_out_G, "task_reward", min_std=0.0)


def test_the_filter_switched_off_keeps_every_group() -> None:
    assert keeps([ShapedReward(task=0.0, length=0.0, factor=1.0)] * 2, "off", min_std=0.0)


# --- samples ---------------------------------------------------------------------------------------


def group(*finishes_G: Finish) -> Group:
    problem = Problem(
        id="p",
        domain="logic",
        source="unit",
        messages=(),
        verifier="puzzle",
        reference={},
        split_key="p",
        prompt_T=(1, 2, 3),
    )
    rollouts_G = tuple(
        Rollout(
            tokens_T=(10 + i, 11),
            logprobs_T=(-0.5 * i, -0.1),
            text="",
            finish=finish,
            version_first=4 + i,
            version_last=9,
            verdict=Verdict(score=0.0, success=False, status="wrong"),
            seconds=1.0,
            server="a",
        )
        for i, finish in enumerate(finishes_G)
    )
    return Group(id=0, problem=problem, rollouts_G=rollouts_G, version=4)


def shaped(*totals_G: float) -> list[ShapedReward]:
    return [ShapedReward(task=total, length=0.0, factor=1.0) for total in totals_G]


def test_a_sample_carries_the_exact_tokens_and_the_version_that_was_asked() -> None:
    samples = to_samples(group("stop", "stop"), shaped(1.0, 0.0), Advantage())
    assert [sample.advantage for sample in samples] == [1.0, -1.0]
    second = samples[1]
    assert (second.domain, second.prompt_T, second.response_T) == ("logic", (1, 2, 3), (11, 11))
    assert (second.logprobs_T, second.version) == ((-0.5, -0.1), 5)


def test_the_advantage_comes_from_the_shaped_reward() -> None:
    shaped_G = [ShapedReward(task=1.0, length=-0.5, factor=0.5), ShapedReward(task=0.0, length=0.0, factor=1)]
    assert [s.advantage for s in to_samples(group("stop", "stop"), shaped_G, Advantage())] == [0.75, -0.75]


def test_masked_truncated_rollouts_shift_the_baseline_and_are_left_out() -> None:
    truncated_group = group("stop", "length", "stop")
    shaped_G = shaped(1.0, -1.0, 0.0)
    all_G = to_samples(truncated_group, shaped_G, Advantage())
    unmasked_G = to_samples(truncated_group, shaped_G, Advantage(mask_truncated=True))
    assert [sample.advantage for sample in all_G] == [1.5, -1.5, 0.0]
    assert unmasked_G == [all_G[0], all_G[2]]


def test_an_all_truncated_group_has_no_samples_when_masked() -> None:
    assert to_samples(group("length", "length"), shaped(1.0, 0.0), Advantage(mask_truncated=True)) == []


def test_the_settings_reach_the_advantage() -> None:
    settings = Advantage(baseline="group_mean", divide_by_std=True)
    samples = to_samples(group("stop", "stop"), shaped(1.0, 0.0), settings)
    assert samples[0].advantage == pytest.approx(0.5 / (0.5**0.5 + 1e-4))


def test_graded_rewards_need_a_spread_where_the_recipe_asks_for_one() -> None:
    close_G = [ShapedReward(task=task, length=0.0, factor=1.0) for task in (0.50, 0.52, 0.54)]
    assert keeps(close_G, "task_reward", min_std=0.01)
    assert not keeps(close_G, "shaped_reward", min_std=0.02)
    assert keeps(close_G, "off", min_std=0.02)
