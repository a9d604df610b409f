import math

import pytest

from apriel_mcore.bench.peers.curve import (
    CurvePoint,
    JudgedGroup,
    Step,
    Trail,
    judged_per_s,
    reached,
    reward_curve,
    rollouts_per_s,
    signal_per_s,
)

RATIOS = {"math": 0.5, "code": 0.5}


def group(seconds: float, domain: str, reward: float) -> JudgedGroup:
    return JudgedGroup(seconds, domain, reward, rollouts=8)


def test_the_curve_begins_when_every_domain_has_a_full_window() -> None:
    # Two groups a step, half and half: a window of three steps holds three groups of each domain.
    math_first = [group(1.0, "math", 1.0)] * 9
    assert reward_curve([*math_first, *[group(2.0, "code", 0.0)] * 2], RATIOS, groups_per_step=2) == []
    curve = reward_curve([*math_first, *[group(2.0, "code", 0.0)] * 3], RATIOS, groups_per_step=2)
    assert curve == [CurvePoint(2.0, 0.5)]


def test_the_mixture_of_what_was_judged_does_not_move_the_curve() -> None:
    fair = [group(1.0, name, reward) for name, reward in (("math", 0.2), ("code", 0.8)) for _ in range(3)]
    lopsided = fair + [group(1.0, "math", 0.2)] * 20
    (plain,), (more,) = (reward_curve(groups, RATIOS, groups_per_step=2) for groups in (fair, lopsided))
    assert plain.reward == pytest.approx(0.5) == more.reward


def test_only_the_last_groups_of_a_domain_count() -> None:
    before = [group(1.0, name, 0.0) for name in RATIOS for _ in range(3)]
    after = [group(2.0, name, 1.0) for name in RATIOS for _ in range(3)]
    assert [p.reward for p in reward_curve(before + after, RATIOS, groups_per_step=2)] == [0.0, 1.0]


def test_a_level_is_reached_when_the_curve_stays_there() -> None:
    curve = [CurvePoint(float(i), reward) for i, reward in enumerate([0.1, 0.5, 0.3, 0.5, 0.6])]
    assert reached(curve, 0.5) == 3.0
    assert reached(curve, 0.05) == 0.0
    assert reached(curve, 0.7) == math.inf


def test_rates_count_from_the_first_prompt() -> None:
    steps = [Step(10.0, 80, 40), Step(16.0, 80, 40)]
    assert (rollouts_per_s(steps), signal_per_s(steps)) == (10.0, 5.0)
    judged = [group(4.0, "math", 0.0), group(4.0, "math", 0.0), group(8.0, "math", 0.0)]
    assert judged_per_s(Trail(5.0, judged, [Step(10.0, 16, 8)])) == 2.4
