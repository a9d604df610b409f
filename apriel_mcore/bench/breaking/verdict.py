"""Was anything lost, trained twice, or trained as what it was not? Read from what a run left behind."""

import json
from collections import Counter
from pathlib import Path
from typing import Protocol

import msgspec
import psutil

from apriel_mcore.bench.breaking.ledger import Entry, key_of
from apriel_mcore.bench.breaking.ledger import read as read_ledger
from apriel_mcore.obs.runlog import Event
from apriel_mcore.obs.trained import read_groups
from apriel_mcore.rollout.journal import Composed, Resolved, records_since
from apriel_mcore.rundir import RunDir
from apriel_mcore.types import Group

MAX_MIXTURE_GAP = 0.05
MAX_AGE = 2
"""Versions: rollout.max_lag + 1."""


class FinishedRun(Protocol):
    """A run that has come to its end (world.Job)."""

    run_dir: RunDir
    steps: int
    family: dict[int, psutil.Process]

    def events(self) -> list[Event]:
        """All of them."""
        ...


class Account(msgspec.Struct, kw_only=True):
    """What became of the finished groups of a run."""

    trained: int
    too_old: int
    left_over: int
    """Finished when the last batch had been composed."""
    no_signal: int
    failed: int
    problems: list[str]
    """What must not be; nothing, hopefully."""


def judge(job: FinishedRun, ledger: Path) -> Account:
    """Every invariant of a run that has come to its end."""
    problems: list[str] = []
    finished, stale, outcomes = _journal(job)
    trained: Counter[int] = Counter()
    truth = read_ledger(ledger)
    for step in range(1, job.steps + 1):
        for group in read_groups(job.run_dir.rollouts / f"step_{step:06d}.jsonl.zst"):
            trained[group.id] += 1
            problems += _about_group(group, finished, truth, step)
    problems += [
        f"group {number} was trained {count} times" for number, count in trained.items() if count > 1
    ]
    problems += [f"group {number} was dropped and trained" for number in stale & trained.keys()]
    left_over = finished.keys() - trained.keys() - stale
    events = job.events()
    steps = [event for event in events if event["event"] == "step"]
    if [event["step"] for event in steps] != list(range(1, job.steps + 1)):
        problems.append(f"the steps are {[event['step'] for event in steps]}")
    for domain in ("math", "code"):
        gap = abs(steps[-1][f"trained_share.{domain}"] - steps[-1][f"target_share.{domain}"])
        if gap > MAX_MIXTURE_GAP:
            problems.append(f"the share of {domain} is {gap:.3f} away from its target")
    problems += _left_behind(job)
    return Account(
        trained=len(trained),
        too_old=len(stale),
        left_over=len(left_over),
        no_signal=outcomes["filtered"],
        failed=outcomes["failed"],
        problems=problems,
    )


def _journal(job: FinishedRun) -> tuple[dict[int, Group], set[int], Counter[str]]:
    """Kept groups by id, the ids dropped as stale, and how many ended in which way."""
    finished, stale, outcomes = dict[int, Group](), set[int](), Counter[str]()
    for record in records_since(job.run_dir.rollouts, 0):
        match record:
            case Resolved(group=Group() as group):
                finished[record.group_id] = group
            case Resolved():
                outcomes[record.outcome] += 1
            case Composed():
                stale |= set(record.stale)
            case _:
                pass
    return finished, stale, outcomes


def _about_group(
    group: Group, finished: dict[int, Group], truth: dict[str, list[Entry]], step: int
) -> list[str]:
    """A group of the batch of a step: it is the one that was finished, and as fresh as it says."""
    problems: list[str] = []
    if finished.get(group.id) != group:
        problems.append(f"group {group.id} was trained otherwise than it was finished")
    if step - 1 - group.version > MAX_AGE:
        problems.append(f"group {group.id} of version {group.version} was trained in step {step}")
    for rollout in group.rollouts_G:
        entries = truth.get(key_of(list(rollout.tokens_T), list(rollout.logprobs_T)), [])
        if not entries:
            problems.append(f"group {group.id} has an answer that no server gave")
        elif all(entry.first < rollout.version_first for entry in entries):
            seen = sorted({entry.first for entry in entries})
            problems.append(f"group {group.id}: version {rollout.version_first} on paper, {seen} in truth")
    return problems


def _left_behind(job: FinishedRun) -> list[str]:
    """Processes and shared memory of the run."""
    _, alive = psutil.wait_procs(list(job.family.values()), timeout=15)
    problems = [f"process {process.pid} outlived the run: {_command(process)}" for process in alive]
    shared = sorted(path.name for path in Path("/dev/shm").glob(f"apriel-{job.run_dir.digest}*"))
    return problems + [f"/dev/shm/{name} outlived the run" for name in shared]


def _command(process: psutil.Process) -> str:
    try:
        return json.dumps(process.cmdline())[:200]
    except psutil.Error:
        return "gone by now"
