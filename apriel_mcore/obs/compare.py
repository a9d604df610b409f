"""How do runs differ at the end? One Markdown table over several run directories, from their events."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from apriel_mcore.errors import InputError
from apriel_mcore.obs.runlog import Event, read_events
from apriel_mcore.obs.summary import FIRST_STEPS, LAST_STEPS
from apriel_mcore.rundir import RunDir


def table(run_dirs: Sequence[Path]) -> str:
    """Held-out accuracy and mean tokens before -> after per domain, reward, drift and minutes per run.

    InputError for a directory without an evaluated, trained run.
    """
    runs = [_read(folder) for folder in run_dirs]
    domains = [key.removeprefix("accuracy.") for key in runs[0][1] if key.startswith("accuracy.")]
    head = ["run", *domains, "mean", "reward", "mixture L1", "minutes"]
    rows = [head, ["---"] * len(head)]
    rows += [_row(folder.name, domains, *run) for folder, run in zip(run_dirs, runs, strict=True)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _read(folder: Path) -> tuple[list[Event], Event, Event]:
    events = read_events(RunDir(folder).events)
    steps = [event for event in events if event["event"] == "step"]
    evals = [event for event in events if event["event"] == "eval"]
    if not steps or len(evals) < 2:
        raise InputError(f"{folder}: no finished run (steps: {len(steps)}, evaluations: {len(evals)})")
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
