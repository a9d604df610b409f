"""Everything that a page shows of one run, kept up to date from its files.

    events.jsonl, receipts.jsonl, rollouts/trained.jsonl, resolved.toml --refresh--> RunView --> JSON

`revision` changes with what is shown; a page that knows it is told nothing new.
"""

import json
import threading
import time
import tomllib
from collections import Counter, deque
from pathlib import Path
from typing import Any

import msgspec

from apriel_mcore.config.tree import leaves
from apriel_mcore.obs.runlog import Event
from apriel_mcore.obs.watch import read_pulses
from apriel_mcore.rundir import RunDir
from apriel_mcore.views.columns import Columns, Frame
from apriel_mcore.views.shapes import Shapes, servers, shapes
from apriel_mcore.views.shelf import Shelf
from apriel_mcore.views.tail import Tail

SHOWN_MESSAGES = 200
_EXITS = {0: "done", 2: "refused", 75: "stopped on request"}


class RunView:
    """One run directory, which may still grow, or not have begun. `refresh` or `read_all` comes first."""

    def __init__(self, run_dir: RunDir, name: str) -> None:
        self.run_dir = run_dir
        self.name = name
        self.lock = threading.Lock()
        """Held by whoever refreshes or reads."""
        self.steps = Columns("step")
        self.receipts = Columns("version")
        self.shelf = Shelf(run_dir.rollouts)
        self.counts: Counter[str] = Counter()
        """Events by kind."""
        self.revision = 0
        self._events, self._receipt_lines = Tail(run_dir.events), Tail(run_dir.receipts)
        self._messages: deque[Event] = deque(maxlen=SHOWN_MESSAGES)
        self._evals: list[Event] = []
        self._data: Event = {}
        self._started = self._heard = 0.0
        self._reading = True
        self._fleet: tuple[int, list[dict[str, Any]]] = (-1, [])

    def refresh(self) -> bool:
        """Take in some of what was written since the last look; whether there is more."""
        before = self._heard, len(self.shelf)
        for line in self._events.lines():
            event = _decoded(line)
            if event:
                self._take(event)
        for line in self._receipt_lines.lines():
            receipt = _decoded(line)
            if receipt:
                self.receipts.append(receipt)
        more = self.shelf.refresh()
        self.revision += (self._heard, len(self.shelf)) != before
        self._reading = more or self._events.has_more or self._receipt_lines.has_more
        return self._reading

    def read_all(self) -> None:
        """Refresh to the end."""
        while self.refresh():
            pass

    def _take(self, event: Event) -> None:
        self._heard = event["time"]
        self._started = self._started or event["time"]
        self.counts[event["event"]] += 1
        match event["event"]:
            case "step":
                self.steps.append(event)
            case "eval":
                self._evals.append(event)
            case "resume":
                self.steps.forget_after(event["step"])
                self._evals = [old for old in self._evals if old["step"] <= event["step"]]
                self._messages.append(event | {"message": f"resumed at step {event['step']}"})
            case "data":
                self._data = event
            case "alarm" | "phase":
                self._messages.append(event)
            case _:
                pass

    @property
    def outcome(self) -> dict[str, Any]:
        """How the run's last attempt ended; empty while it has not."""
        return _read_json(self.run_dir.outcome)

    @property
    def heard(self) -> float:
        """Time of the last event, seconds since the epoch; 0 without one."""
        return self._heard

    def recipe(self) -> dict[str, Any]:
        """The leaves of the resolved recipe; empty before the run has one."""
        if not self.run_dir.recipe.exists():
            return {}
        return leaves(tomllib.loads(self.run_dir.recipe.read_text(encoding="utf-8")))

    def card(self) -> dict[str, Any]:
        """All but the series: name, state, recipe, held-out results, messages."""
        recipe, outcome = self.recipe(), self.outcome
        return {
            "name": self.name,
            "revision": self.revision,
            "reading": self._reading,
            "now": time.time(),
            "started": self._started,
            "heard": self._heard,
            "state": _EXITS.get(outcome["code"], "failed") if outcome else "open",
            "outcome": outcome,
            "step": self.steps.last,
            "num_steps": recipe.get("train.num_steps", 0),
            "domains": self.domains(),
            "latest": self.steps.latest(),
            "recipe": recipe,
            "provenance": _read_json(self.run_dir.root / "provenance.json"),
            "data": self._data,
            "evals": _without_middle_samples(self._evals),
            "messages": list(self._messages),
            "num_alarms": self.counts["alarm"],
            "pulses": read_pulses(self.run_dir.pulse),
            "servers": self._servers(),
            "num_rollouts": len(self.shelf),
            "words": self.shelf.words,
        }

    def _servers(self) -> list[dict[str, Any]]:
        """Counted once a revision: a page asks for its card every few seconds."""
        if self._fleet[0] != self.revision:
            self._fleet = self.revision, servers(self.shelf, self.steps.last)
        return self._fleet[1]

    def domains(self) -> list[str]:
        """As the steps name them; before the first one, as the recipe does."""
        latest = self.steps.latest()
        named = [key.removeprefix("target_share.") for key in latest if key.startswith("target_share.")]
        return named or [key.split(".")[1] for key in self.recipe() if key.endswith(".ratio")]

    def frame(self, max_buckets: int, *, low: int = 0, high: int | None = None) -> Frame:
        """Series of the steps from `low` to `high`."""
        return self.steps.frame(self.steps.width_for(max_buckets, low=low, high=high), low=low, high=high)

    def receipts_frame(self, max_buckets: int) -> Frame:
        """Series of the published versions."""
        return self.receipts.frame(self.receipts.width_for(max_buckets))

    def shapes(self) -> Shapes:
        """Distributions of lengths and difficulty."""
        return shapes(self.shelf, self.steps.last)


def _decoded(line: bytes) -> Event:
    """An event; empty for a line that a killed attempt tore."""
    try:
        return msgspec.json.decode(line)
    except msgspec.DecodeError:
        return {}


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _without_middle_samples(evals: list[Event]) -> list[Event]:
    """Evaluations; only the first and the last one keep what was answered."""
    bare = [{key: value for key, value in event.items() if key != "samples"} for event in evals]
    return [*evals[:1], *bare[1:-1], *evals[1:][-1:]]
