"""What is the run doing right now? A terminal view that reads nothing but events.jsonl."""

import json
import shutil
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from apriel_mcore.config.schema import RunConfig

Event = dict[str, Any]

_NOTHING_LEFT = 1 << 16
"""Bytes."""


class LiveView:
    """A table that follows the run on a terminal; one line per event where there is none."""

    def __init__(self, config: RunConfig, events: Path) -> None:
        self._config = config
        self._events = events
        self._offset = events.stat().st_size if events.exists() else 0
        self._rest = b""
        self._last: dict[str, Event] = {}
        self._disk_is_full = False
        self._console = Console()
        self._stderr = Console(stderr=True)
        self._live = Live(console=self._console, refresh_per_second=2) if sys.stdout.isatty() else None

    def __enter__(self) -> "LiveView":
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def refresh(self) -> None:
        """Read what was appended and show it."""
        for event in self._new_events():
            self._last[event["event"]] = event
            if event["event"] == "alarm":
                self._alarm(event)
            elif self._live:
                self._live.update(self._table())
            else:
                line = one_line(event, self._config.train.num_steps)
                if line:
                    self._console.print(line, highlight=False, soft_wrap=True)

        self._look_at_disk()

    def _look_at_disk(self) -> None:
        """Say that it is full: what the run itself says of it has to wait for space, as events do."""
        is_full = shutil.disk_usage(self._events.parent).free < _NOTHING_LEFT
        if is_full != self._disk_is_full:
            verb = "is full: the run stands still until there is space" if is_full else "has space again"
            self._alarm({"event": "alarm", "message": f"the disk of {self._events.parent} {verb}"})
        self._disk_is_full = is_full

    def _alarm(self, event: Event) -> None:
        """Above the table where there is one, else on stderr."""
        console = self._console if self._live else self._stderr
        console.print(one_line(event, self._config.train.num_steps), highlight=False, soft_wrap=True)

    def _new_events(self) -> list[Event]:
        if not self._events.exists():
            return []
        with self._events.open("rb") as file:
            file.seek(self._offset)
            chunk = file.read()
        self._offset += len(chunk)
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        return [json.loads(line) for line in lines if line]

    def _table(self) -> Group:
        step = self._last.get("step", {})
        evaluation = self._last.get("eval", {})
        table = Table(title=f"{self._config.name}  step {step.get('step', 0)}/{self._config.train.num_steps}")
        for name in ("domain", "reward", "trained share", "target", "mean tokens", "held-out"):
            table.add_column(name, justify="left" if name == "domain" else "right", no_wrap=name == "domain")
        for name, target in self._config.ratios.items():
            table.add_row(
                name,
                _number(step, f"reward.{name}"),
                _number(step, f"trained_share.{name}", ".3f"),
                f"{step.get(f'target_share.{name}', target):.3f}",
                _number(step, f"tokens_mean.{name}", ".1f"),
                _number(evaluation, f"accuracy.{name}"),
            )
        return Group(table, Text(_footer(step) or _phase(self._last)))


def one_line(event: Event, num_steps: int) -> str:
    """An event for a log; empty for those that are not worth a line."""
    match event["event"]:
        case "step":
            return f"step {event['step']:>4}/{num_steps}  reward {event['reward_mean']:.3f}  {_footer(event)}"
        case "eval":
            accuracies = "  ".join(
                f"{key.removeprefix('accuracy.')} {value:.2f}"
                for key, value in event.items()
                if key.startswith("accuracy.")
            )
            return f"eval {event['step']:>4}/{num_steps}  held-out {event['accuracy_mean']:.3f}  {accuracies}"
        case "resume":
            return (
                f"resume  at step {event['step']}; batches composed after it are trained again as they were"
            )
        case "phase" | "alarm":
            return f"{event['event']:>5}  {event['message']}"
        case _:
            return ""


def _footer(step: Event) -> str:
    if not step:
        return ""
    return (
        f"loss {step['loss']:+.4f}  |dlogp| {step['logprob_abs_diff']:.4f}  lag {step['lag_mean']:.1f}"
        f"  {step['tokens_per_s']:.0f} tok/s  wait {step['time_wait_s']:.1f}s"
        f"  train {step['time_train_s']:.1f}s  publish {step['time_publish_s']:.1f}s"
    )


def _phase(last: dict[str, Event]) -> str:
    return last["phase"]["message"] if "phase" in last else "starting"


def _number(event: Event, key: str, form: str = ".2f") -> str:
    return format(event[key], form) if key in event else "-"
