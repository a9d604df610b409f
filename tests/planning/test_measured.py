"""What a run's answers say of their lengths, also when long ones were cut."""

import json
from pathlib import Path

import numpy as np
import pytest

from apriel_mcore.errors import InputError
from apriel_mcore.obs.trained import write_groups
from apriel_mcore.planning import measured
from apriel_mcore.types import Group, Problem, Rollout, Verdict

BUDGET = 900


def group(number: int, domain: str, lengths_G: list[int]) -> Group:
    problem = Problem(
        id=f"{domain}-{number}",
        domain=domain,
        source="test",
        messages=(),
        verifier="exact",
        reference={},
        split_key="",
        prompt_T=(1,) * 40,
    )
    rollouts_G = tuple(
        Rollout(
            tokens_T=(1,) * length,
            logprobs_T=(0.0,) * length,
            text="",
            finish="length" if length == BUDGET else "stop",
            version_first=0,
            version_last=0,
            verdict=Verdict(score=0.0, success=False, status="wrong"),
            seconds=1.0,
            server="0",
        )
        for length in lengths_G
    )
    return Group(id=number, problem=problem, rollouts_G=rollouts_G, version=0, attempt=0)


def run_of(folder: Path, lengths: dict[str, np.ndarray]) -> Path:
    """A run directory of one step with these answers, in groups of 8."""
    (folder / "rollouts").mkdir()
    groups = [
        group(number, domain, row.tolist())
        for domain, found in lengths.items()
        for number, row in enumerate(found.reshape(-1, 8))
    ]
    write_groups(folder / "rollouts" / "step_000001.jsonl.zst", groups)
    event = {"event": "step", "time": 0.0, "step": 1} | {f"feed.keep_rate.{name}": 0.25 for name in lengths}
    (folder / "events.jsonl").write_text(json.dumps(event) + "\n")
    return folder


def test_cut_answers_do_not_change_what_is_found(tmp_path: Path) -> None:
    drawn = np.random.default_rng(0).lognormal(np.log(400), 0.8, 4000)
    cut = np.clip(np.ceil(drawn), 1, BUDGET).astype(int)
    assert (cut == BUDGET).mean() > 0.1
    found = measured.lengths(run_of(tmp_path, {"math": cut}))["math"]
    assert found.sigma == pytest.approx(0.8, rel=0.05)
    assert found.mean == pytest.approx(400 * np.exp(0.8**2 / 2), rel=0.05)
    assert (found.keep, found.prompt) == (0.25, 40.0)


def test_answers_of_one_length_have_a_spread_that_can_be_drawn(tmp_path: Path) -> None:
    found = measured.lengths(run_of(tmp_path, {"calls": np.full(16, 24)}))["calls"]
    assert found.mean == pytest.approx(24, rel=0.01)
    assert found.sigma > 0


def test_a_run_without_a_step_is_refused(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text("")
    with pytest.raises(InputError, match="no step"):
        measured.lengths(tmp_path)


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(InputError, match=r"no run: it has no events\.jsonl"):
        measured.lengths(tmp_path)
