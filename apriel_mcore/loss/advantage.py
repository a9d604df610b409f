"""How much better than its siblings is an answer? From the rewards of a group to trainable samples.

    ShapedReward x G --keeps?--> rewards_G --advantages--> Sample x (G or fewer)

Shape suffix: _G the rollouts of one group.
"""

from collections.abc import Sequence
from math import fsum, sqrt
from statistics import pstdev
from typing import Literal

from apriel_mcore.config.schema import Advantage
from apriel_mcore.types import Group, Sample, ShapedReward

SIGNAL_THRESHOLD = 1e-6
"""Rewards that differ by no more than this are equal."""

STD_EPSILON = 1e-4
"""Keeps a nearly constant group from being blown up by the division by its standard deviation."""


def advantages(
    rewards_G: Sequence[float], *, baseline: Literal["leave_one_out", "group_mean"], divide_by_std: bool
) -> tuple[float, ...]:
    """Advantage of each rollout over its group; they sum to 0, and a rollout alone has 0.

    leave_one_out: A_i = r_i - mean of the others = n / (n - 1) * (r_i - mean)   (arXiv 2402.14740).
    group_mean: A_i = r_i - mean   (arXiv 2402.03300).
    `divide_by_std` divides either by the sample standard deviation (n - 1) plus STD_EPSILON.
    """
    n = len(rewards_G)
    if n == 1:
        return (0.0,)
    mean = fsum(rewards_G) / n
    scale = n / (n - 1) if baseline == "leave_one_out" else 1.0
    if divide_by_std:
        std = sqrt(fsum((reward - mean) ** 2 for reward in rewards_G) / (n - 1))
        scale /= std + STD_EPSILON
    return tuple(scale * (reward - mean) for reward in rewards_G)


def has_signal(rewards_G: Sequence[float], *, min_std: float) -> bool:
    """Whether some reward differs from the others: only then does the group give a gradient.

    `min_std`: and whether they differ that much (population standard deviation, RLPR, arXiv 2506.18254).
    """
    return max(rewards_G) - min(rewards_G) > SIGNAL_THRESHOLD and pstdev(rewards_G) >= min_std


def keeps(
    shaped_G: Sequence[ShapedReward],
    filter_on: Literal["shaped_reward", "task_reward", "off"],
    *,
    min_std: float,
) -> bool:
    """Whether a group survives the zero-advantage filter (DAPO's dynamic sampling, arXiv 2503.14476).

    On the shaped reward, a group that is all correct but of different lengths is kept and trains
    length alone; on the task reward it goes.
    """
    match filter_on:
        case "shaped_reward":
            return has_signal([shaped.total for shaped in shaped_G], min_std=min_std)
        case "task_reward":
            return has_signal([shaped.task for shaped in shaped_G], min_std=min_std)
        case "off":
            return True


def to_samples(group: Group, shaped_G: Sequence[ShapedReward], settings: Advantage) -> list[Sample]:
    """The trainable samples of a group, in its order.

    With `mask_truncated`, truncated rollouts are left out after they have shifted the baseline; the
    list is then shorter than the group, and empty when all were truncated.
    """
    advantages_G = advantages(
        [shaped.total for shaped in shaped_G],
        baseline=settings.baseline,
        divide_by_std=settings.divide_by_std,
    )
    return [
        Sample(
            domain=group.problem.domain,
            prompt_T=group.problem.prompt_T,
            response_T=rollout.tokens_T,
            logprobs_T=rollout.logprobs_T,
            advantage=advantage,
            version=rollout.version_first,
            temperature=group.temperature,
        )
        for rollout, advantage in zip(group.rollouts_G, advantages_G, strict=True)
        if not (settings.mask_truncated and rollout.truncated)
    ]
