"""How good were a run's answers at which time, and from when on was it as good as another run?

Both systems are read alike: as the groups that were judged, whether they were trained or not.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

WINDOW_STEPS = 3
"""Steps whose groups, by the mixture, make one value of a curve."""


class JudgedGroup(NamedTuple):
    """The answers to one prompt."""

    seconds: float
    """Since the first prompt was sent."""
    domain: str
    reward: float
    """Mean task reward: without the length penalty."""
    rollouts: int


class Step(NamedTuple):
    """An optimizer step that ended."""

    seconds: float
    rollouts: int
    """Trained in it."""
    with_signal: int
    """Of these, in groups that the recipe's filter keeps: the others have no advantage to learn from."""


class Trail(NamedTuple):
    """What a run left behind, in order of time."""

    setup_s: float
    """From the command to the first prompt."""
    groups: Sequence[JudgedGroup]
    steps: Sequence[Step]


class CurvePoint(NamedTuple):
    """Reward at a time."""

    seconds: float
    reward: float


def reward_curve(
    groups: Sequence[JudgedGroup], ratios: Mapping[str, float], *, groups_per_step: int
) -> list[CurvePoint]:
    """A point for each time at which groups were judged, from when every domain has a full window.

    The reward is the mean over domains with the weights of the mixture, each over as many groups as
    WINDOW_STEPS steps hold of it: the mixture of what a system answered (or threw away) does not move it.
    """
    window = {name: max(1, round(WINDOW_STEPS * groups_per_step * ratio)) for name, ratio in ratios.items()}
    seen: dict[str, list[float]] = {name: [] for name in ratios}
    curve: list[CurvePoint] = []
    for group in groups:
        seen[group.domain].append(group.reward)
        if any(len(seen[name]) < size for name, size in window.items()):
            continue
        total = sum(ratios.values())
        reward = sum(ratios[name] / total * sum(seen[name][-size:]) / size for name, size in window.items())
        if curve and curve[-1].seconds == group.seconds:
            curve.pop()
        curve.append(CurvePoint(group.seconds, reward))
    return curve


def reached(curve: Sequence[CurvePoint], level: float) -> float:
    """Seconds from which the curve stays at `level` or above; infinite when it ends below.

    A noisy curve first touches a level long before it is there for good.
    """
    since = math.inf
    for point in reversed(curve):
        if point.reward < level:
            break
        since = point.seconds
    return since


def rollouts_per_s(steps: Sequence[Step]) -> float:
    """Trained, from the first prompt to the end of the last step."""
    return sum(step.rollouts for step in steps) / steps[-1].seconds


def signal_per_s(steps: Sequence[Step]) -> float:
    """Trained in the same time, with a signal."""
    return sum(step.with_signal for step in steps) / steps[-1].seconds


def judged_per_s(trail: Trail) -> float:
    """Answered and judged in the same time, also those that were not trained."""
    return sum(group.rollouts for group in trail.groups) / trail.steps[-1].seconds
