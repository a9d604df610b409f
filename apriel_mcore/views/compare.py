"""How do runs differ at the end? One Markdown table over several run directories, from their events."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from apriel_mcore.errors import InputError
from apriel_mcore.obs.runlog import Event, read_events
from apriel_mcore.rundir import RunDir, existing
from apriel_mcore.views.summary import FIRST_STEPS, LAST_STEPS


class _Run(NamedTuple):
    name: str
    """Of its folder; with how far it has come, where that is not the end."""
    steps: list[Event]
    before: Event
    after: Event


def table(run_dirs: Sequence[Path]) -> str:
    """Held-out accuracy and mean tokens before -> after per domain, reward, drift and minutes per run.

    Minutes are those between the first and the last evaluation. A run that has not ended says so beside its
    name; one without two evaluations is named below the table. InputError when none has them, or where there
    is no run.
    """
    runs: list[_Run] = []
    left_out: list[str] = []
    for folder in run_dirs:
        found = _read(existing(folder))
        runs += [found] if isinstance(found, _Run) else []
        left_out += [found] if isinstance(found, str) else []
    if not runs:
        raise InputError(f"nothing to compare: {', '.join(left_out)}; a run needs a step and two evaluations")
    domains = list(dict.fromkeys(name for run in runs for name in _domains(run.after)))
    head = ["run", *domains, "mean", "reward", "mixture L1", "minutes"]
    rows = [head, ["---"] * len(head)]
    rows += [_row(domains, run) for run in runs]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines + ([f"\nnot in the table: {', '.join(left_out)}"] if left_out else []))


def _read(run_dir: RunDir) -> _Run | str:
    """What a row needs; in words what there is instead, of a run that has not come that far."""
    name, total = run_dir.root.resolve().name, run_dir.num_steps
    events = read_events(run_dir.events)
    steps = [event for event in events if event["event"] == "step"]
    evals = [event for event in events if event["event"] == "eval"]
    done = steps[-1]["step"] if steps else 0
    if not steps or len(evals) < 2:
        return f"{name} (step {done} of {total}, {len(evals)} evaluation(s))"
    last = evals[-1]["step"]
    if min(done, last) < total:
        name = f"{name} (unfinished: step {done} of {total}, evaluated at {last})"
    return _Run(name, steps, evals[0], evals[-1])


def _domains(evaluation: Event) -> list[str]:
    return [key.removeprefix("accuracy.") for key in evaluation if key.startswith("accuracy.")]


def _cell(domain: str, before: Event, after: Event) -> str:
    if domain not in _domains(before) or domain not in _domains(after):
        return "-"
    return (
        f"{before[f'accuracy.{domain}']:.2f} -> {after[f'accuracy.{domain}']:.2f} "
        f"({before[f'tokens_mean.{domain}']:.0f} -> {after[f'tokens_mean.{domain}']:.0f} tok)"
    )


def _row(domains: list[str], run: _Run) -> list[str]:
    name, steps, before, after = run
    cells = [_cell(domain, before, after) for domain in domains]
    rewards = [fmean(s["reward_mean"] for s in part) for part in (steps[:FIRST_STEPS], steps[-LAST_STEPS:])]
    last = steps[-1]
    drift = sum(
        abs(last[key] - last[key.replace("trained", "target")])
        for key in last
        if key.startswith("trained_share")
    )
    minutes = (after["time"] - before["time"]) / 60
    accuracies = f"{before['accuracy_mean']:.2f} -> {after['accuracy_mean']:.2f}"
    return [
        name,
        *cells,
        accuracies,
        f"{rewards[0]:.2f} -> {rewards[1]:.2f}",
        f"{drift:.3f}",
        f"{minutes:.0f}",
    ]
