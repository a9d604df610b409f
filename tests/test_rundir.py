"""A run directory is continued only by its own recipe."""

import json
import os
import re
from pathlib import Path

import pytest

from apriel_mcore.checkpoint_folder import STATE_FILE, folder_of, seal
from apriel_mcore.config.load import load
from apriel_mcore.errors import InputError, PoolError
from apriel_mcore.rundir import (
    RunDir,
    check_resumable,
    check_same_recipe,
    existing,
    held,
    is_finished,
    prepare,
)

QUICKSTART = Path(__file__).parents[1] / "recipes" / "quickstart.toml"


def test_the_same_recipe_continues_and_another_is_refused_with_its_keys(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path / "run")
    check_same_recipe(run_dir, load(QUICKSTART))
    prepare(run_dir, load(QUICKSTART))
    check_same_recipe(run_dir, load(QUICKSTART))
    with pytest.raises(InputError, match=r"train\.optimizer\.lr: 5e-05 -> 0\.001"):
        check_same_recipe(run_dir, load(QUICKSTART, ["train.optimizer.lr=1e-3"]))


STAGES = ["mixture.kind=stages", "mixture.stages.first.steps=2"]
MORE = ["mixture.stages.second.steps=3"]
DISTRIBUTED = "train.parallel.distributed_optimizer"


@pytest.mark.parametrize(
    ("saved", "asked", "kept"),
    [
        ([], [f"{DISTRIBUTED}=true"], f"keep {DISTRIBUTED} = false"),
        ([f"{DISTRIBUTED}=true"], [f"{DISTRIBUTED}=false"], f"keep {DISTRIBUTED} = true"),
        ([], ["train.precision=fp32"], 'keep train.precision = "bf16"'),
        ([f"{DISTRIBUTED}=true"], [f"{DISTRIBUTED}=true", "train.precision=fp32"], ""),
        ([], ["train.parallel.pipeline=2", "train.optimizer.lr=1e-3"], ""),
        ([], ["mixture.kind=reward_gap"], 'keep mixture.kind = "constant", or start in another --run-dir'),
        (["mixture.kind=reward_gap"], [*STAGES, *MORE], 'keep mixture.kind = "reward_gap"'),
        (["mixture.kind=reward_gap"], ["mixture.kind=reward_gap", "mixture.every=3"], ""),
        ([*STAGES, *MORE], STAGES, "keep first, second in this order"),
        ([*STAGES, *MORE], [STAGES[0], *MORE, STAGES[1]], "keep first, second in this order"),
        (STAGES, [*STAGES, *MORE], ""),
    ],
)
def test_a_change_that_checkpoints_cannot_follow_is_refused_before_anything_starts(
    tmp_path: Path, saved: list[str], asked: list[str], kept: str
) -> None:
    run_dir = RunDir(tmp_path / "run")
    check_resumable(run_dir, load(QUICKSTART, asked))
    prepare(run_dir, load(QUICKSTART, saved))
    check_resumable(run_dir, load(QUICKSTART, asked))  # nothing is saved yet
    partial = run_dir.checkpoints / "step_000002.partial"
    partial.mkdir()
    (partial / STATE_FILE).write_text("{}")
    seal(partial, folder_of(run_dir.checkpoints, 2), {})
    run_dir.recipe.write_text("older_key = 1\n" + run_dir.recipe.read_text())
    if not kept:
        check_resumable(run_dir, load(QUICKSTART, asked))
        return
    with pytest.raises(InputError, match=re.escape(kept)):
        check_resumable(run_dir, load(QUICKSTART, asked))


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


def test_one_command_at_a_time_works_on_a_run(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path / "run")
    with held(run_dir):
        check_same_recipe(run_dir, load(QUICKSTART))  # the lock alone is no other run
        with pytest.raises(InputError, match="another command works on this run"), held(run_dir):
            raise AssertionError("not to be reached")
    with held(run_dir):
        pass


def test_a_directory_made_for_bad_input_is_gone_again_and_any_other_stays(tmp_path: Path) -> None:
    new, old = RunDir(tmp_path / "new"), RunDir(tmp_path / "old")
    with pytest.raises(InputError), held(new):
        prepare(new, load(QUICKSTART))
        raise InputError("a bad row")
    assert not new.root.exists()
    with pytest.raises(PoolError), held(new):
        raise PoolError("servers died")
    assert new.root.exists()
    with held(old):
        prepare(old, load(QUICKSTART))
    with pytest.raises(InputError), held(old):
        raise InputError("a bad row")
    assert old.recipe.exists()


def test_a_file_is_no_run_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file"):
        check_same_recipe(RunDir(tmp_path / "file"), load(QUICKSTART))


def test_the_lock_tells_which_process_to_signal(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path / "run")
    with held(run_dir):
        with pytest.raises(InputError), held(run_dir):
            raise AssertionError("not to be reached")
        assert run_dir.lock.read_text() == f"{os.getpid()}\n"
    assert run_dir.lock.read_text() == ""


def test_a_run_is_finished_when_its_last_step_is_saved_and_evaluated(tmp_path: Path) -> None:
    run_dir, config = RunDir(tmp_path / "run"), load(QUICKSTART)
    prepare(run_dir, config)
    partial = run_dir.checkpoints / "step_000030.partial"
    partial.mkdir()
    (partial / STATE_FILE).write_text("{}")
    seal(partial, folder_of(run_dir.checkpoints, 30), {})
    run_dir.events.write_text(json.dumps({"event": "eval", "time": 0.0, "step": 15}) + "\n")
    assert not is_finished(run_dir, config)
    with run_dir.events.open("a") as events:
        events.write(json.dumps({"event": "eval", "time": 1.0, "step": 30}) + "\n")
    assert is_finished(run_dir, config)
    assert not is_finished(run_dir, load(QUICKSTART, ["train.num_steps=40"]))


def test_a_wrong_path_of_a_run_names_those_that_lie_near(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path / "runs" / "mine")
    prepare(run_dir, load(QUICKSTART))
    assert existing(run_dir.root) == run_dir
    for wrong, found in (
        (tmp_path / "runs" / "mien", "no such folder"),
        (tmp_path / "runs", "neither resolved.toml nor events.jsonl"),
        (run_dir.checkpoints / "step_000010", "no such folder"),
    ):
        with pytest.raises(InputError) as error:
            existing(wrong)
        assert str(error.value).startswith(f"{wrong}: {found}")
        assert f"did you mean {run_dir.root}?" in str(error.value)
    with pytest.raises(InputError, match="give that of a run"):
        existing(tmp_path / "elsewhere" / "x")
