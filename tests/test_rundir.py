"""A run directory is continued only by its own recipe."""

from pathlib import Path

import pytest

from apriel_mcore.config.load import load
from apriel_mcore.errors import InputError
from apriel_mcore.rundir import RunDir, check_same_recipe, prepare

QUICKSTART = Path(__file__).parents[1] / "recipes" / "quickstart.toml"


def test_the_same_recipe_continues_and_another_is_refused_with_its_keys(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path / "run")
    check_same_recipe(run_dir, load(QUICKSTART))
    prepare(run_dir, load(QUICKSTART))
    check_same_recipe(run_dir, load(QUICKSTART))
    with pytest.raises(InputError, match=r"train\.optimizer\.lr: 5e-05 -> 0\.001"):
        check_same_recipe(run_dir, load(QUICKSTART, ["train.optimizer.lr=1e-3"]))


def test_a_directory_that_is_no_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match="not empty and not a run"):
        check_same_recipe(RunDir(tmp_path), load(QUICKSTART))


def test_prepare_clears_the_last_attempts_request_and_outcome(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path / "run")
    prepare(run_dir, load(QUICKSTART))
    run_dir.stop_request.touch()
    run_dir.outcome.write_text("{}")
    prepare(run_dir, load(QUICKSTART))
    assert not run_dir.stop_request.exists()
    assert not run_dir.outcome.exists()
