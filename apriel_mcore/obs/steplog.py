"""The loop's one line of logging: the `step` event and the trained groups on disk."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import zstandard

from apriel_mcore.disk import patiently
from apriel_mcore.obs import spans
from apriel_mcore.obs.runlog import Event, RunLog
from apriel_mcore.obs.stepevent import Shaped, step_event
from apriel_mcore.types import Batch, Group, StepStats


class StepLog:
    """Writes a step on the first rank; `rollouts` is where the trained groups go.

    `targets` is the mixture that the groups of the step were composed for.
    """

    def __init__(
        self,
        run_log: RunLog,
        *,
        rollouts: Path,
        targets: Callable[[], Mapping[str, float]],
        feed_metrics: Callable[[], Mapping[str, float]],
        past: Iterable[Event] = (),
    ) -> None:
        self._run_log = run_log
        self._rollouts = rollouts
        self._targets = targets
        self._feed_metrics = feed_metrics
        steps = [event for event in past if event["event"] == "step"]
        self._trained = trained_groups(steps)
        self._mean_targets = _by_domain(steps[-1], "target_share") if steps else {}
        """Over the steps so far: what the share of all groups trained is to be compared with."""
        self._num_steps = len(steps)

    def write(
        self, step: int, groups: Sequence[Group], shaped_P_G: Shaped, batch: Batch, stats: StepStats
    ) -> None:
        """One step event, one rollouts file."""
        self._num_steps += 1
        for name, target in self._targets().items():
            mean = self._mean_targets.get(name, 0.0)
            self._mean_targets[name] = mean + (target - mean) / self._num_steps
        event = step_event(
            step=step,
            groups=groups,
            shaped_P_G=shaped_P_G,
            batch=batch,
            stats=stats,
            targets=self._mean_targets,
            trained_before=self._trained,
            seconds=spans.drain(),
        )
        self._trained.update(group.problem.domain for group in groups)
        write_groups(self._rollouts / f"step_{step:06d}.jsonl.zst", groups)
        self._run_log.event("step", **event, **{f"feed.{k}": v for k, v in self._feed_metrics().items()})


class SilentStepLog(StepLog):
    """On the other ranks: drains the timers and writes nothing."""

    def __init__(self) -> None:
        pass

    def write(
        self, step: int, groups: Sequence[Group], shaped_P_G: Shaped, batch: Batch, stats: StepStats
    ) -> None:
        """Nothing to write on this rank."""
        spans.drain()


def trained_groups(steps: Iterable[Event]) -> Counter[str]:
    """Groups trained by domain, from step events."""
    trained: Counter[str] = Counter()
    for event in steps:
        trained.update(_by_domain(event, "trained_groups"))
    return trained


def _by_domain(event: Event, field: str) -> dict[str, Any]:
    """The values of `FIELD.DOMAIN`, by domain."""
    prefix = f"{field}."
    return {key.removeprefix(prefix): value for key, value in event.items() if key.startswith(prefix)}


def write_groups(path: Path, groups: Sequence[Group]) -> None:
    """Trained groups as zstd-compressed JSON lines, in training order; replaces the file whole."""
    lines = b"".join(msgspec.json.encode(group) + b"\n" for group in groups)
    partial = path.with_suffix(".partial")
    compressed = zstandard.compress(lines, level=3)

    def write() -> None:
        partial.write_bytes(compressed)
        partial.replace(path)

    patiently(write, where=path)


def read_groups(path: Path) -> list[Group]:
    """The groups of one step's rollouts file."""
    decoder = msgspec.json.Decoder(Group)
    return [decoder.decode(line) for line in zstandard.decompress(path.read_bytes()).splitlines()]
