"""Every recipe that ships passes `apriel check --sizes-only`, and says what it is."""

from pathlib import Path

import pytest

from apriel_mcore import cli
from apriel_mcore.config.load import load
from apriel_mcore.config.schema import WheelModel
from tests.shapes import RECIPES, config_only

RUNNABLE = sorted(set(RECIPES.rglob("*.toml")) - {RECIPES / "base.toml"})
APRIEL_15B = RECIPES / "shapes" / "apriel_15b"


@pytest.mark.parametrize("recipe", RUNNABLE, ids=lambda path: str(path.relative_to(RECIPES)))
def test_every_recipe_passes_the_check_of_sizes(recipe: Path, tmp_path: Path) -> None:
    is_small = isinstance(load(recipe).model, WheelModel)
    folder = config_only(tmp_path / "model", "smollm2_135m") if is_small else APRIEL_15B
    cli.main(["check", "--sizes-only", str(recipe), "model.kind=folder", f"model.path={folder}"])


@pytest.mark.parametrize("recipe", sorted(RECIPES.rglob("*.toml")), ids=lambda p: str(p.relative_to(RECIPES)))
def test_every_recipe_says_what_it_is(recipe: Path) -> None:
    assert recipe.read_text(encoding="utf-8").startswith("# ")
