"""`apriel best`: which checkpoint of a run is kept as its result? The one with the best mean over domains.

As in the paper (arXiv 2604.02007: step 250 of 400, by held-out accuracy), from the run's own evaluations.
The best of many noisy numbers looks better than it is: its lead over the next is told with its noise.
"""

from collections.abc import Iterable, Mapping, Sequence
from math import sqrt
from pathlib import Path

import msgspec
from rich.table import Table

from apriel_mcore import checkpoint_folder
from apriel_mcore.checkpoints import best_steps, missing_domains
from apriel_mcore.errors import InputError
from apriel_mcore.evaluate import by_domain
from apriel_mcore.obs.runlog import Event, read_events
from apriel_mcore.rundir import RunDir, existing
from apriel_mcore.views.terminal import add_columns, show


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint that was evaluated."""

    step: int
    accuracy: float
    """Mean over domains, each of which weighs the same."""
    error: float
    """Standard error of that mean, from the number of answers."""
    domains: dict[str, float]
    tokens: dict[str, float]


def run(run_dir: Path, *, from_step: int) -> Path:
    """Print the candidates and the folder of the best one. InputError when the run has none."""
    paths = existing(run_dir)
    candidates = _candidates(paths, from_step)
    accuracy = {one.step: one.domains for one in candidates}
    lacking = missing_domains(accuracy)
    chosen = best_steps(accuracy, paths.checkpoints, 1)
    if candidates and not chosen:
        raise InputError(
            f"{run_dir}: no two evaluations to compare: {_left_out(lacking)}; measure them with `apriel eval`"
        )
    if not chosen:
        raise InputError(
            f"{run_dir}: no checkpoint from step {from_step} on was evaluated: {paths.checkpoints} has those "
            f"of steps {_listed(_saved(paths))}, {paths.events} evaluations at {_listed(_evals(paths))}; set "
            "checkpoint.every and eval.every so that they meet, or measure checkpoints with `apriel eval`"
        )
    if lacking:
        print(f"left out: {_left_out(lacking)}")
    candidates = [one for one in candidates if one.step not in lacking]
    best = next(one for one in candidates if one.step in chosen)
    show(_table(run_dir, candidates, best))
    print(_lead(candidates, best))
    folder = checkpoint_folder.folder_of(paths.checkpoints, best.step)
    print(folder)
    return folder


def _candidates(paths: RunDir, from_step: int) -> list[Candidate]:
    """Evaluated checkpoints that are still there, by step."""
    evals = _evals(paths)
    return [_candidate(evals[step]) for step in sorted(_saved(paths) & evals.keys()) if step >= from_step]


def _saved(paths: RunDir) -> set[int]:
    return {checkpoint_folder.step_of(folder) for folder in checkpoint_folder.complete(paths.checkpoints)}


def _evals(paths: RunDir) -> dict[int, Event]:
    return {event["step"]: event for event in read_events(paths.events) if event["event"] == "eval"}


def _left_out(lacking: Mapping[int, list[str]]) -> str:
    return "; ".join(f"step {step} has no verdict in {', '.join(of)}" for step, of in lacking.items())


def _listed(steps: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(steps))) or "none"


def _candidate(event: Event) -> Candidate:
    domains = by_domain(event)
    variances = [p * (1 - p) / event[f"count.{name}"] for name, p in domains.items()]
    return Candidate(
        step=event["step"],
        accuracy=event["accuracy_mean"],
        error=sqrt(sum(variances)) / len(domains),
        domains=domains,
        tokens={name: event[f"tokens_mean.{name}"] for name in domains},
    )


def _lead(candidates: Sequence[Candidate], best: Candidate) -> str:
    others = [one for one in candidates if one.step != best.step]
    if not others:
        return "the only evaluated checkpoint"
    second = max(others, key=lambda one: one.accuracy)
    lead, noise = best.accuracy - second.accuracy, sqrt(best.error**2 + second.error**2)
    words = "beyond" if lead > 2 * noise else "within"
    leads = f"step {best.step} leads step {second.step} by {lead:.3f}"
    return f"{leads}, {words} twice its standard error of {noise:.3f}"


def _table(run_dir: Path, candidates: Sequence[Candidate], best: Candidate) -> Table:
    made = Table(title=f"{run_dir.name}: evaluated checkpoints")
    names = list(best.domains)
    add_columns(made, "step", "mean", *names, words=0)
    for one in candidates:
        cells = [f"{one.domains[name]:.3f} ({one.tokens[name]:.1f})" for name in names]
        mark = "*" if one.step == best.step else ""
        made.add_row(f"{mark}{one.step}", f"{one.accuracy:.3f} +- {one.error:.3f}", *cells)
    return made
