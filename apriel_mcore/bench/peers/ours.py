"""`apriel train` for a fixed wall time, and what its run directory says of it."""

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from apriel_mcore.bench.peers.curve import JudgedGroup, Step, Trail
from apriel_mcore.config.load import load
from apriel_mcore.config.schema import RunConfig
from apriel_mcore.errors import AprielError, Preempted
from apriel_mcore.loss.reward import shape_group
from apriel_mcore.obs.runlog import Event, read_events
from apriel_mcore.rollout.journal import Dispatched, Record, Resolved, Settled, records_since
from apriel_mcore.rundir import RunDir
from apriel_mcore.types import Group

UNTIL_STOPPED = ["train.num_steps=10000", "eval.every=0", "checkpoint.every=10000"]
"""What differs from the recipe: the clock ends the run, and nothing but training is timed."""
_LOOK_S = 0.5


def train(recipe: Path, folder: Path, *, seconds: float) -> Trail:
    """A run that is stopped after `seconds` of training, at the end of a step; `folder` keeps its files."""
    folder.mkdir(parents=True)
    run_dir, output = RunDir(folder / "run"), folder / "output.log"
    command = [sys.executable, "-m", "apriel_mcore.processes", "apriel_mcore.cli", "train", str(recipe)]
    began = time.time()
    with output.open("wb") as log:
        process = subprocess.Popen(
            [*command, *UNTIL_STOPPED, "--run-dir", str(run_dir.root)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            _stop_after(process, run_dir, seconds)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if process.returncode != Preempted.exit_code:
        raise AprielError(f"apriel train ended with {process.returncode}, not when it was asked to: {output}")
    events, records = read_events(run_dir.events), records_since(run_dir.rollouts, 0)
    return trail(load(recipe, UNTIL_STOPPED), events, records, began=began)


def _stop_after(process: "subprocess.Popen[bytes]", run_dir: RunDir, seconds: float) -> None:
    """Ask the run to stop when its training has taken so long, and wait for its end."""
    asked = False
    while process.poll() is None:
        time.sleep(_LOOK_S)
        if not asked and time.time() > _first_prompt(read_events(run_dir.events)) + seconds:
            process.send_signal(signal.SIGUSR1)
            asked = True


def _first_prompt(events: Sequence[Event]) -> float:
    """When generation was about to begin (the first publish comes before it, and is counted)."""
    times = [e["time"] for e in events if e["event"] == "phase" and "publishing" in e["message"]]
    return times[0] if times else float("inf")


def trail(config: RunConfig, events: Sequence[Event], records: Sequence[Record], *, began: float) -> Trail:
    """Of the steps that ended; a judged group counts at the end of the step during which it was judged.

    All that is trained has a signal if the recipe filters (advantage.filter_on).
    """
    zero = _first_prompt(events)
    ends = {event["step"]: event for event in events if event["event"] == "step"}
    groups: list[JudgedGroup] = []
    waiting: list[Resolved] = []
    domains: dict[int, str] = {}
    for record in records:
        match record:
            case Dispatched():
                domains[record.group_id] = record.domain
            case Resolved(outcome="kept" | "filtered"):
                waiting.append(record)
            case Settled(version=version) if version in ends:
                seconds = ends[version]["time"] - zero
                groups += [_judged(config, done, domains[done.group_id], seconds) for done in waiting]
                waiting.clear()
            case _:
                pass
    steps = [Step(event["time"] - zero, event["samples"], event["samples"]) for event in ends.values()]
    return Trail(zero - began, groups, steps)


def _judged(config: RunConfig, record: Resolved, domain: str, seconds: float) -> JudgedGroup:
    """Of a group that was thrown away the journal has no answers: all of its rewards were equal, so that it
    was all right or all not, and partial credit that all had counts as none."""
    if isinstance(record.group, Group):
        reward = fmean(shaped.task for shaped in shape_group(record.group, config))
        return JudgedGroup(seconds, domain, reward, len(record.group.rollouts_G))
    return JudgedGroup(seconds, domain, record.solve_rate, config.rollout.group_size)
