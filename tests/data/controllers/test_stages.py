"""Stages follow each other by steps or by reward, and say what may not change in mid-run."""

import json
from pathlib import Path

import pytest

from apriel_mcore.config.load import load
from apriel_mcore.config.schema import RunConfig
from apriel_mcore.data.controllers import controller_of
from apriel_mcore.errors import ConfigError

QUICKSTART = Path(__file__).parents[3] / "recipes" / "quickstart.toml"
DOMAINS = ("math", "code", "logic", "instruction", "calls")
ONE_HOT = [
    f"mixture.stages.{stage}.settings.domains.{domain}.ratio={float(domain == stage)}"
    for stage in ("math", "code")
    for domain in DOMAINS
]
CASCADE = [
    "mixture.kind=stages",
    "mixture.stages.math.steps=3",
    "mixture.stages.math.until_reward=0.5",
    "mixture.stages.math.reward_window=2",
    "mixture.stages.code.steps=2",
    *ONE_HOT,
]


def cascade(*more: str) -> RunConfig:
    return load(QUICKSTART, [*CASCADE, *more])


def test_a_stage_is_the_recipe_with_its_settings_in_it() -> None:
    config = cascade("mixture.stages.code.settings.domains.code.max_output_tokens=40")
    math, code = config.stages()
    assert (math.ratios["math"], code.ratios["code"]) == (1.0, 1.0)
    assert (math.budget_of("code"), code.budget_of("code")) == (config.budget_of("code"), 40)
    assert math.train == code.train == config.train
    assert load(QUICKSTART).stages() == (load(QUICKSTART),)


def test_stages_end_by_steps_and_the_last_one_stays() -> None:
    controller = controller_of(cascade())
    stages = [controller.aim.stage]
    for _ in range(7):
        controller.observe({"math": 0.1})
        stages.append(controller.aim.stage)
    assert stages == [0, 0, 0, 1, 1, 1, 1, 1]
    assert controller.aim.ratios["code"] == 1.0


def test_a_reward_ends_a_stage_early_once_its_window_is_full() -> None:
    controller = controller_of(cascade())
    controller.observe({"math": 0.9})
    assert controller.aim.stage == 0
    controller.observe({"math": 0.3})
    assert controller.aim.stage == 1


def test_a_restored_controller_goes_on() -> None:
    controller, restored = controller_of(cascade()), controller_of(cascade())
    controller.observe({"math": 0.2})
    controller.observe({"math": 0.2})
    restored.load(json.loads(json.dumps(controller.state())))
    for each in (controller, restored):
        each.observe({"math": 0.8})
    assert restored.aim == controller.aim
    assert restored.state() == controller.state()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("mixture.stages.code.settings.train.seq_len=64", ["code", "train.seq_len", "whole run"]),
        ("mixture.stages.code.settings.domains.math.ratio=0.5", ["stages.code", "sum to 1"]),
        ("mixture.stages.code.settings.rollout.max_output_tokens=900", ["stages.code", "max_model_len"]),
        ("mixture.stages.code.settings.reward.lenght.kind=none", ["stages.code.settings.reward", "lenght"]),
        ("mixture.stages.code.stepps=4", ["mixture.stages.code.stepps", "`steps`"]),
    ],
)
def test_a_stage_that_cannot_be_is_refused_at_the_start(override: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        cascade(override)
    for word in words:
        assert word in str(error.value)


def test_the_how_tos_recipe_is_one(tmp_path: Path) -> None:
    page = (QUICKSTART.parents[1] / "docs" / "how-to" / "move-the-mixture.md").read_text()
    text = page.split("```toml\n")[1].split("```")[0]
    recipe = tmp_path / "staged.toml"
    recipe.write_text(text.replace('"quickstart.toml"', f'"{QUICKSTART}"'))
    warm_up, hard = load(recipe).stages()
    assert warm_up.ratios == load(QUICKSTART).ratios
    assert hard.ratios["math"] == 0.5
