"""The loop's one line of logging: the `step` event and the trained groups on disk."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from apriel_mcore.disk import AppendOnly, patiently
from apriel_mcore.obs import spans
from apriel_mcore.obs.runlog import Event, RunLog
from apriel_mcore.obs.spans import Span
from apriel_mcore.obs.stepevent import Shaped, step_event
from apriel_mcore.obs.stragglers import Stragglers
from apriel_mcore.obs.timeline import Timeline
from apriel_mcore.obs.trained import index_line, step_file, write_groups
from apriel_mcore.types import Batch, Group, StepStats


class StepFiles:
    """What a step leaves on disk beside its event: groups with their texts, their index, the timeline."""

    def __init__(self, rollouts: Path, timeline: Timeline) -> None:
        self._rollouts = rollouts
        self._index_path = rollouts / "trained.jsonl"
        self._index = AppendOnly(self._index_path)
        self._timeline = timeline

    def write(
        self, step: int, groups: Sequence[Group], shaped_P_G: Shaped, batch: Batch, done: Sequence[Span]
    ) -> None:
        """Texts first: the index names nothing that is not there."""
        places = write_groups(step_file(self._rollouts, step), groups)
        line = index_line(step, groups, shaped_P_G, batch, places)
        patiently(lambda: self._index.append(line, sync=False), where=self._index_path)
        self._timeline.write(step, done)


class StepLog:
    """Writes a step on the first rank.

    `targets` is the mixture that the groups of the step were composed for.
    """

    def __init__(
        self,
        run_log: RunLog,
        *,
        files: StepFiles,
        targets: Callable[[], Mapping[str, float]],
        feed_metrics: Callable[[], Mapping[str, float]],
        stragglers: Stragglers,
        past: Iterable[Event] = (),
    ) -> None:
        self._run_log = run_log
        self._files = files
        self._stragglers = stragglers
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
        drained = spans.drain()
        event = step_event(
            step=step,
            groups=groups,
            shaped_P_G=shaped_P_G,
            batch=batch,
            stats=stats,
            targets=self._mean_targets,
            trained_before=self._trained,
            seconds=drained.totals,
        )
        self._trained.update(group.problem.domain for group in groups)
        self._files.write(step, groups, shaped_P_G, batch, drained.spans)
        for message in self._stragglers.observe(groups):
            self._run_log.event("alarm", message=message)
        self._run_log.event("step", **event, **{f"feed.{k}": v for k, v in self._feed_metrics().items()})


class SilentStepLog(StepLog):
    """On the other ranks: their timeline alone."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline

    def write(
        self, step: int, groups: Sequence[Group], shaped_P_G: Shaped, batch: Batch, stats: StepStats
    ) -> None:
        """What this rank did."""
        self._timeline.write(step, spans.drain().spans)


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
