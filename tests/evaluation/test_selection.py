"""The checkpoint with the best mean over domains, with its lead and the noise in it."""

import json
from pathlib import Path

import pytest

from apriel_mcore import checkpoint_folder
from apriel_mcore.errors import InputError
from apriel_mcore.evaluation import selection


def run_dir(tmp_path: Path, evals: dict[int, dict[str, float]], *, saved: list[int]) -> Path:
    lines = []
    for step, domains in evals.items():
        event: dict[str, object] = {"event": "eval", "time": 0.0, "step": step}
        event["accuracy_mean"] = sum(domains.values()) / len(domains)
        for name, accuracy in domains.items():
            event |= {f"accuracy.{name}": accuracy, f"tokens_mean.{name}": 10.0, f"count.{name}": 100}
        lines.append(json.dumps(event))
    (tmp_path / "events.jsonl").write_text("\n".join(lines) + "\n")
    for step in saved:
        folder = checkpoint_folder.folder_of(tmp_path / "checkpoints", step)
        folder.mkdir(parents=True)
        (folder / checkpoint_folder.MANIFEST).write_text("{}")
    return tmp_path


EVALS = {
    0: {"math": 0.9, "code": 0.9},
    150: {"math": 0.8, "code": 0.1},
    200: {"math": 0.5, "code": 0.6},
    250: {"math": 0.5, "code": 0.58},
    300: {"math": 0.9, "code": 0.9},
}


def test_the_best_mean_of_those_that_are_saved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_dir(tmp_path, EVALS, saved=[150, 200, 250])
    assert selection.run(run, from_step=1).name == "step_000200"
    told = capsys.readouterr().out
    assert "step 200 leads step 250 by 0.010, within twice its standard error of 0.050" in told
    assert selection.run(run, from_step=201).name == "step_000250"
    assert "the only evaluated checkpoint" in capsys.readouterr().out


def test_one_that_lacks_a_domain_is_left_out_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evals = {150: {"math": 0.8}, 200: {"math": 0.7, "code": 0.5}, 250: {"math": 0.6, "code": 0.5}}
    run = run_dir(tmp_path, evals, saved=[150, 200, 250])
    assert selection.run(run, from_step=1).name == "step_000200"
    told = capsys.readouterr().out
    assert "left out: step 150 has no verdict in code" in told
    assert "step 200 leads step 250" in told


def test_none_that_can_be_compared(tmp_path: Path) -> None:
    run = run_dir(tmp_path, {150: {"math": 0.8}, 200: {"code": 0.7}}, saved=[150, 200])
    with pytest.raises(InputError, match="step 150 has no verdict in code; step 200 has no verdict in math"):
        selection.run(run, from_step=1)


def test_no_checkpoint_that_was_evaluated(tmp_path: Path) -> None:
    run = run_dir(tmp_path, EVALS, saved=[175])
    with pytest.raises(InputError, match=r"checkpoint\.every and eval\.every"):
        selection.run(run, from_step=1)
    with pytest.raises(InputError, match=r"steps 175, .*events\.jsonl evaluations at 0, 150, 200, 250, 300;"):
        selection.run(run, from_step=1)
    with pytest.raises(InputError, match="nowhere: no such folder"):
        selection.run(tmp_path / "nowhere", from_step=1)
