"""What the reference reward is worth, by hand and as laws."""

from math import log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apriel_mcore.config.schema import BoundedDeviation, NoReferenceReward, ReferenceProbability
from apriel_mcore.loss.reference import deviation_rewards, mean_probability, reference_rewards, with_reference
from apriel_mcore.types import Finish, Group, Problem, Rollout, Verdict

LOGPROBS_T = st.lists(st.floats(-50.0, 0.0), max_size=6).map(tuple)


def rollout(
    reference_T: tuple[float, ...], finish: Finish = "stop", own_T: tuple[float, ...] = ()
) -> Rollout:
    return Rollout(
        tokens_T=(7, 8),
        logprobs_T=(-0.5, -0.5),
        text="",
        finish=finish,
        version_first=0,
        version_last=0,
        verdict=Verdict(score=0.0, success=False, status="wrong"),
        seconds=1.0,
        server="a",
        reference_logprobs_T=reference_T,
        own_logprobs_T=own_T,
    )


def group(*rollouts_G: Rollout, alone_T: tuple[float, ...] = ()) -> Group:
    problem = Problem(
        id="p", domain="math", source="s", messages=(), verifier="text", reference={}, split_key="p"
    )
    return Group(id=0, problem=problem, rollouts_G=rollouts_G, version=0, alone_logprobs_T=alone_T)


def test_by_hand() -> None:
    good, bad = (log(0.9), log(0.5)), (log(0.1), log(0.1))
    several = group(rollout(good), rollout(bad), rollout(good, "length"), rollout(()), alone_T=(log(0.2),))
    assert reference_rewards(several, debias=False) == pytest.approx((0.7, 0.1, 0.0, 0.0))
    assert reference_rewards(several, debias=True) == pytest.approx((0.5, 0.0, 0.0, 0.0))
    task_G = [1.0, 0.0, 0.0, 0.0]
    instead = ReferenceProbability(weight=2.0)
    assert with_reference(task_G, several, instead) == pytest.approx([1.0, 0.0, 0.0, 0.0])
    beside = ReferenceProbability(verdict_weight=1.0, debias=False)
    assert with_reference(task_G, several, beside) == pytest.approx([1.7, 0.1, 0.0, 0.0])
    assert with_reference(task_G, several, NoReferenceReward()) == task_G


def test_a_deviation_within_the_bound_earns_a_little() -> None:
    """p = 0.8 and gamma = 4: own answers from 0.6 to 0.8 are within, and the farthest of them earns most."""
    own = (0.8, 0.9, 0.7, 0.601, 0.599, 0.1)
    several = group(*(rollout((log(0.8),), own_T=(log(q),)) for q in own), alone_T=(log(0.5),))
    bounded = BoundedDeviation(weight=0.1, gamma=4.0)
    expected_G = (0.0, 0.0, 0.01, 0.0199, 0.0, 0.0)
    assert deviation_rewards(several, bounded) == pytest.approx(expected_G)
    settings = ReferenceProbability(weight=2.0, deviation=bounded)
    rewards_G = with_reference([1.0] * 6, several, settings)
    assert rewards_G == pytest.approx([0.6 + deviation for deviation in expected_G])


def test_no_answer_and_a_truncated_one_have_no_deviation() -> None:
    several = group(rollout((log(0.8),)), rollout((log(0.8),), "length", (log(0.75),)), rollout(()))
    assert deviation_rewards(several, BoundedDeviation()) == (0.0, 0.0, 0.0)


@given(LOGPROBS_T, LOGPROBS_T, st.floats(1.0, 20.0))
def test_a_deviation_never_earns_more_than_its_share_of_the_reference(
    reference_T: tuple[float, ...], own_T: tuple[float, ...], gamma: float
) -> None:
    several = group(rollout(reference_T, own_T=own_T), rollout(own_T, own_T=reference_T))
    there, back = deviation_rewards(several, BoundedDeviation(weight=0.5, gamma=gamma))
    assert 0.0 <= there <= 0.5 * mean_probability(reference_T) / gamma
    assert min(there, back) == 0.0


def test_one_unlikely_token_of_a_paraphrase_does_not_decide() -> None:
    assert mean_probability((0.0, 0.0, -40.0, 0.0)) == pytest.approx(0.75)


@given(LOGPROBS_T)
def test_a_mean_of_probabilities_lies_between_the_least_and_the_most_likely(
    logprobs_T: tuple[float, ...],
) -> None:
    mean = mean_probability(logprobs_T)
    assert 0.0 <= mean <= 1.0
    assert mean_probability(logprobs_T * 3) == pytest.approx(mean)


@given(st.lists(LOGPROBS_T, min_size=2, max_size=6), LOGPROBS_T)
def test_the_debiased_reward_keeps_the_order_and_the_range(
    references: list[tuple[float, ...]], alone_T: tuple[float, ...]
) -> None:
    several = group(*(rollout(reference_T) for reference_T in references), alone_T=alone_T)
    plain_G = reference_rewards(several, debias=False)
    debiased_G = reference_rewards(several, debias=True)
    assert all(0.0 <= debiased <= plain for debiased, plain in zip(debiased_G, plain_G, strict=True))
    order = sorted(range(len(plain_G)), key=plain_G.__getitem__)
    ranked = [debiased_G[number] for number in order]
    assert ranked == sorted(ranked)
