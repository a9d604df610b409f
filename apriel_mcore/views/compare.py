"""How do runs differ at the end? One Markdown table over several run directories, from their events."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from apriel_mcore.errors import InputError
from apriel_mcore.obs.runlog import Event, read_events
from apriel_mcore.rundir import RunDir
from apriel_mcore.views.summary import FIRST_STEPS, LAST_STEPS


def table(run_dirs: Sequence[Path]) -> str:
    """Held-out accuracy and mean tokens before -> after per domain, reward, drift and minutes per run.

    Minutes are those between the first and the last evaluation. Runs without both are named below the
    table; InputError when none has them.
    """
    runs = {folder.name: run for folder in run_dirs if (run := _read(folder))}
    unfinished = [folder.name for folder in run_dirs if folder.name not in runs]
    if not runs:
        raise InputError(f"no finished run among {', '.join(map(str, run_dirs))}")
    first = next(iter(runs.values()))
    domains = [key.removeprefix("accuracy.") for key in first[1] if key.startswith("accuracy.")]
    head = ["run", *domains, "mean", "reward", "mixture L1", "minutes"]
    rows = [head, ["---"] * len(head)]
    rows += [_row(name, domains, *run) for name, run in runs.items()]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines + ([f"\nnot finished: {', '.join(unfinished)}"] if unfinished else []))


def _read(folder: Path) -> tuple[list[Event], Event, Event] | None:
    """Steps, first and last evaluation; None for a run that has not come that far."""
    events = read_events(RunDir(folder).events)
    steps = [event for event in events if event["event"] == "step"]
    evals = [event for event in events if event["event"] == "eval"]
    if not steps or len(evals) < 2:
        return None
    return steps, evals[0], evals[-1]


def _row(name: str, domains: list[str], steps: list[Event], before: Event, after: Event) -> list[str]:
    cells = [
        f"{before[f'accuracy.{d}']:.2f} -> {after[f'accuracy.{d}']:.2f} "
        f"({before[f'tokens_mean.{d}']:.0f} -> {after[f'tokens_mean.{d}']:.0f} tok)"
        for d in domains
    ]
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
