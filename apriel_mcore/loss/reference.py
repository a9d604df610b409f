"""What is a reasoning worth that makes the reference answer likely? The reward of RLPR (arXiv 2506.18254).

    log pi of the reference after each rollout's reasoning --mean probability--> p_G --.
    the same without reasoning -------------------------------------------------> p0 --|--> reward_G
    log pi of the rollout's own answer there (DARL, arXiv 2601.14700) ----------> q_G -'

Shape suffixes: _T tokens of an answer, _G the rollouts of one group. A group-level post-processor,
as the length penalty is: pure, over what the group carries.
"""

from collections.abc import Sequence
from math import exp, fsum

from apriel_mcore.config.schema import (
    BoundedDeviation,
    NoReferenceReward,
    ReferenceProbability,
    ReferenceReward,
)
from apriel_mcore.types import Group, Rollout


def mean_probability(logprobs_T: Sequence[float]) -> float:
    """The mean over tokens of their probability, in [0, 1]; 0 where there is no answer.

    Not the product: one token of a paraphrase that is unlikely would take it to 0, and longer references
    would always be worth less.
    """
    if not logprobs_T:
        return 0.0
    return fsum(exp(logprob) for logprob in logprobs_T) / len(logprobs_T)


def reference_rewards(group: Group, *, debias: bool) -> tuple[float, ...]:
    """The reference reward of each rollout in [0, 1], before its weight; truncated rollouts have none.

    With `debias`, what the reference has without reasoning is taken off, and less than that is worth 0.
    """
    alone = mean_probability(group.alone_logprobs_T) if debias else 0.0
    return tuple(
        0.0 if rollout.truncated else max(0.0, mean_probability(rollout.reference_logprobs_T) - alone)
        for rollout in group.rollouts_G
    )


def deviation_rewards(group: Group, settings: BoundedDeviation) -> tuple[float, ...]:
    """weight * d of each finished rollout whose deviation d = max(0, p - q) is within p / gamma, else 0.

    p is the mean probability of the reference after its reasoning, q that of its own answer there.
    """
    return tuple(_deviation(rollout, settings) for rollout in group.rollouts_G)


def _deviation(rollout: Rollout, settings: BoundedDeviation) -> float:
    reference = mean_probability(rollout.reference_logprobs_T)
    deviation = max(0.0, reference - mean_probability(rollout.own_logprobs_T))
    if rollout.truncated or deviation > reference / settings.gamma:
        return 0.0
    return settings.weight * deviation


def with_reference(task_G: Sequence[float], group: Group, settings: ReferenceReward) -> Sequence[float]:
    """The task rewards of a group, with its reference reward in their place or beside them."""
    match settings:
        case NoReferenceReward():
            return task_G
        case ReferenceProbability():
            reference_G = reference_rewards(group, debias=settings.debias)
            deviation_G: Sequence[float] = [0.0] * len(task_G)
            if isinstance(settings.deviation, BoundedDeviation):
                deviation_G = deviation_rewards(group, settings.deviation)
            return [
                settings.verdict_weight * task + settings.weight * reference + deviation
                for task, reference, deviation in zip(task_G, reference_G, deviation_G, strict=True)
            ]
