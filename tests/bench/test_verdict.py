"""Whoever lost, doubled, changed or mislabelled a group is found."""

import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import psutil
import pytest

from apriel_mcore.bench.breaking import verdict
from apriel_mcore.bench.breaking.ledger import Entry, key_of
from apriel_mcore.obs.trained import write_groups
from apriel_mcore.rollout.journal import Composed, Resolved
from apriel_mcore.rundir import RunDir
from apriel_mcore.types import Group, Problem, Rollout, Verdict


def group(number: int, *, version: int) -> Group:
    """Two answers, told apart by the group's number."""
    problem = Problem(
        id=str(number), domain="math", source="s", messages=(), verifier="math", reference={}, split_key="k"
    )
    rollouts_G = tuple(
        Rollout(
            tokens_T=(number, i),
            logprobs_T=(-0.5, -0.25),
            text="",
            finish="stop",
            version_first=version,
            version_last=version,
            verdict=Verdict(score=1.0, success=True, status="correct"),
            seconds=0.1,
            server="s",
        )
        for i in range(2)
    )
    return Group(id=number, problem=problem, rollouts_G=rollouts_G, version=version)


class Run:
    """Two steps of two groups each; group 4 was dropped as too old and 5 is left over."""

    def __init__(self, folder: Path) -> None:
        self.run_dir = RunDir(folder)
        self.run_dir.rollouts.mkdir()
        self.steps = 2
        self.family: dict[int, psutil.Process] = {}
        self.ledger = folder / "ledger.jsonl"
        self.batches = {
            1: [group(0, version=0), group(1, version=0)],
            2: [group(2, version=1), group(3, version=0)],
        }
        self.finished = [*self.batches[1], *self.batches[2], group(4, version=0), group(5, version=1)]
        self.versions_in_truth: dict[int, int] = {}
        self.shares = {"math": 0.6, "code": 0.4}

    def events(self) -> list[dict]:
        targets = {"target_share.math": 0.6, "target_share.code": 0.4}
        shares = {f"trained_share.{name}": share for name, share in self.shares.items()}
        return [{"event": "step", "step": step} | targets | shares for step in self.batches]

    def write(self) -> None:
        for step, groups in self.batches.items():
            write_groups(self.run_dir.rollouts / f"step_{step:06d}.jsonl.zst", groups)
        records = [
            Resolved(group_id=one.id, outcome="kept", loss_tokens=4, solve_rate=1.0, group=one)
            for one in self.finished
        ]
        records.append(
            Resolved(group_id=9, outcome="filtered", loss_tokens=4, solve_rate=1.0, group="dropped")
        )
        last = Composed(version=1, force=False, group_ids=(2, 3), stale=(4,))
        lines = [msgspec.json.encode(record) for record in [*records, last]]
        (self.run_dir.rollouts / "journal_000000.jsonl").write_bytes(b"\n".join(lines) + b"\n")
        entries = [
            Entry(
                key_of(list(rollout.tokens_T), list(rollout.logprobs_T)),
                self.versions_in_truth.get(one.id, one.version),
                one.version,
            )
            for one in self.finished
            for rollout in one.rollouts_G
        ]
        self.ledger.write_bytes(b"\n".join(map(msgspec.json.encode, entries)) + b'\n{"torn')


def test_a_run_that_lost_nothing_is_accounted_for(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.write()
    account = verdict.judge(run, run.ledger)
    assert account.problems == []
    assert (account.trained, account.too_old, account.left_over, account.no_signal) == (4, 1, 1, 1)


def _twice(run: Run) -> None:
    run.batches[2].append(run.batches[1][0])


def _dropped_and_trained(run: Run) -> None:
    run.batches[2].append(run.finished[4])


def _changed(run: Run) -> None:
    run.batches[1][1] = msgspec.structs.replace(run.batches[1][1], attempt=7)


def _unknown(run: Run) -> None:
    run.batches[1].append(group(77, version=0))


def _mislabelled(run: Run) -> None:
    run.versions_in_truth[2] = 0


def _stale(run: Run) -> None:
    run.steps, run.batches = 4, run.batches | {3: [], 4: [group(6, version=0)]}
    run.finished.append(run.batches[4][0])


def _missing_step(run: Run) -> None:
    run.steps = 3
    write_groups(run.run_dir.rollouts / "step_000003.jsonl.zst", [])


def _unbalanced(run: Run) -> None:
    run.shares = {"math": 0.8, "code": 0.2}


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (_twice, "group 0 was trained 2 times"),
        (_dropped_and_trained, "group 4 was dropped and trained"),
        (_changed, "group 1 was trained otherwise than it was finished"),
        (_unknown, "group 77 has an answer that no server gave"),
        (_mislabelled, r"group 2: version 1 on paper, \[0\] in truth"),
        (_stale, "group 6 of version 0 was trained in step 4"),
        (_missing_step, "the steps are"),
        (_unbalanced, "the share of math is 0.200 away"),
    ],
)
def test_every_harm_is_found(harm: Callable[[Run], None], words: str, tmp_path: Path) -> None:
    run = Run(tmp_path)
    harm(run)
    run.write()
    problems = "\n".join(verdict.judge(run, run.ledger).problems)
    assert re.search(words, problems), problems


def test_shared_memory_that_is_left_is_found(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.write()
    left = Path("/dev/shm") / f"apriel-{run.run_dir.digest}-test"
    left.touch()
    try:
        assert f"{left} outlived the run" in verdict.judge(run, run.ledger).problems
    finally:
        left.unlink()
