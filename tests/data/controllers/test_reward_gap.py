"""The mixture follows the rewards as RuleReasoner's formula says, slowly, and is saved with the run."""

import json
from math import exp
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apriel_mcore.config.schema import RewardGapMixture
from apriel_mcore.data.controllers.reward_gap import RewardGap

RATIOS = {"math": 0.5, "code": 0.3, "logic": 0.2, "calls": 0.0}
EVERY_STEP = RewardGapMixture(every=1)


def test_the_papers_weights_by_hand() -> None:
    controller = RewardGap(RATIOS, EVERY_STEP)
    controller.observe({"math": 0.2, "code": 0.8, "logic": 1.0})
    scores = [exp(0.8 / 0.5) + 0.1, exp(0.2 / 0.5) + 0.1, 1.0 + 0.1]
    expected = [score / sum(scores) for score in scores]
    assert list(controller.ratios.values()) == pytest.approx([*expected, 0.0])


def test_in_the_codes_form_epsilon_cancels() -> None:
    rewards = {"math": 0.2, "code": 0.8, "logic": 1.0}
    ratios = []
    for epsilon in (0.0, 0.7):
        controller = RewardGap(RATIOS, RewardGapMixture(every=1, form="code", epsilon=epsilon))
        controller.observe(rewards)
        ratios.append(controller.ratios)
    assert ratios[0] == pytest.approx(ratios[1])


@pytest.mark.parametrize("form", ["paper", "code"])
@pytest.mark.parametrize("temperature", [0.01, 0.001, 1e-9])
def test_a_cold_softmax_gives_the_largest_gap_all(form: Literal["paper", "code"], temperature: float) -> None:
    settings = RewardGapMixture(every=1, temperature=temperature, form=form, epsilon=0.1)
    controller = RewardGap(RATIOS, settings)
    controller.observe({"math": 0.0, "code": 0.9, "logic": 0.9})
    assert controller.ratios == pytest.approx({"math": 1.0, "code": 0.0, "logic": 0.0, "calls": 0.0})


def test_the_running_reward_forgets_by_half_and_absence_keeps_it() -> None:
    one, other = RewardGap(RATIOS, EVERY_STEP), RewardGap(RATIOS, EVERY_STEP)
    for controller, last in ((one, {"math": 0.8}), (other, {"math": 0.8, "code": 0.4, "logic": 0.4})):
        controller.observe({"math": 0.4, "code": 0.4, "logic": 0.4})
        controller.observe(last)
        assert controller.state()["running"]["math"] == pytest.approx(0.6)
    assert one.ratios == other.ratios


def test_signed_rewards_double_the_gap() -> None:
    unit = RewardGap(RATIOS, RewardGapMixture(every=1, temperature=0.5))
    signed = RewardGap(RATIOS, RewardGapMixture(every=1, temperature=1.0, scale="signed"))
    for controller in (unit, signed):
        controller.observe({"math": 0.0, "code": 0.5, "logic": 1.0})
    assert unit.ratios == pytest.approx(signed.ratios)


def test_the_recipes_ratios_hold_until_every_domain_was_seen() -> None:
    controller = RewardGap(RATIOS, EVERY_STEP)
    controller.observe({"math": 0.0, "code": 1.0})
    assert controller.ratios == RATIOS
    controller.observe({"logic": 0.5})
    assert controller.ratios["math"] > controller.ratios["logic"] > controller.ratios["code"]


def test_ratios_change_only_when_due() -> None:
    controller = RewardGap(RATIOS, RewardGapMixture(every=3))
    seen = []
    for step in range(6):
        controller.observe({"math": step / 10, "code": 0.5, "logic": 0.5})
        seen.append(controller.ratios["math"])
    assert seen[0] == seen[1] == 0.5
    assert seen[2] == seen[3] == seen[4] != seen[1]
    assert seen[5] < seen[4]


rewards = st.dictionaries(st.sampled_from(["math", "code", "logic"]), st.floats(0, 1), min_size=1)


@given(st.lists(rewards, max_size=12), st.lists(rewards, max_size=5), st.integers(1, 4))
def test_ratios_are_a_mixture_and_a_restored_controller_goes_on(
    before: list[dict[str, float]], after: list[dict[str, float]], every: int
) -> None:
    settings = RewardGapMixture(every=every)
    controller = RewardGap(RATIOS, settings)
    for batch in before:
        controller.observe(batch)
    restored = RewardGap(RATIOS, settings)
    restored.load(json.loads(json.dumps(controller.state())))
    for batch in after:
        controller.observe(batch)
        restored.observe(batch)
    assert restored.ratios == controller.ratios
    assert sum(controller.ratios.values()) == pytest.approx(1.0)
    assert controller.ratios["calls"] == 0.0
    assert min(controller.ratios[name] for name in ("math", "code", "logic")) > 0.0
