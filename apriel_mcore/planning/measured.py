"""How long are the answers of a run, and how many groups survive? What `apriel plan --lengths RUN_DIR` reads.

The lengths are those of trained groups: what was filtered leaves no answers behind. Median and 16th
percentile stand for the whole lognormal, as neither moves when long answers are cut at the budget.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from apriel_mcore.errors import InputError
from apriel_mcore.obs.runlog import read_events
from apriel_mcore.obs.trained import read_groups
from apriel_mcore.planning.workload import DomainLengths
from apriel_mcore.types import Group

_ONE_SIGMA_BELOW = 15.87
"""Percent of a normal distribution that lie more than one sigma below its median."""
_LEAST_SIGMA = 0.05
"""Of answers that are all equally long."""


def lengths(run_dir: Path) -> dict[str, DomainLengths]:
    """Of every domain that the run trained. InputError if it trained no step."""
    if not (run_dir / "events.jsonl").is_file():
        raise InputError(f"--lengths {run_dir}: no run: it has no events.jsonl; give the --run-dir of one")
    steps = [event for event in read_events(run_dir / "events.jsonl") if event["event"] == "step"]
    groups = [group for path in sorted((run_dir / "rollouts").glob("step_*")) for group in read_groups(path)]
    if not steps or not groups:
        raise InputError(f"--lengths {run_dir}: the run has trained no step; give a later run, or a file")
    by_domain: dict[str, list[Group]] = {}
    for group in groups:
        by_domain.setdefault(group.problem.domain, []).append(group)
    return {name: _of_domain(found, steps[-1][f"feed.keep_rate.{name}"]) for name, found in by_domain.items()}


def _of_domain(groups: list[Group], keep: float) -> DomainLengths:
    tokens = np.array([len(rollout.tokens_T) for group in groups for rollout in group.rollouts_G])
    median, below = np.percentile(np.log(tokens), [50, _ONE_SIGMA_BELOW])
    sigma = max(float(median - below), _LEAST_SIGMA)
    return DomainLengths(
        mean=math.exp(median + sigma**2 / 2),
        sigma=sigma,
        keep=keep,
        prompt=float(np.mean([len(group.problem.prompt_T) for group in groups])),
    )


def lines(found: Mapping[str, DomainLengths]) -> list[str]:
    """A table of what was measured."""
    head = ["| domain | mean | sigma | keep | prompt |", "|---|---|---|---|---|"]
    rows = [
        f"| {name} | {one.mean:.0f} | {one.sigma:.2f} | {one.keep:.2f} | {one.prompt:.0f} |"
        for name, one in found.items()
    ]
    return head + rows
