"""What happened? events.jsonl is append-only and the source of truth for every view.

A resumed run appends a `resume` event; steps after the resumed one that an earlier attempt wrote are
dropped by `read_events`, so that each step counts once.
"""

import json
import threading
import time
from pathlib import Path
from typing import Any, Protocol

from apriel_mcore.disk import AppendOnly, is_disk_full

Event = dict[str, Any]


class EventWriter(Protocol):
    """A place that events go to."""

    def write(self, event: Event) -> None:
        """Take one event; must not block the run for long."""
        ...

    def close(self, *, failed: bool) -> None:
        """The run is over, well or not."""
        ...


class JsonlWriter:
    """events.jsonl: one object a line, written at once from any thread; on a full disk, with a later one."""

    def __init__(self, path: Path) -> None:
        self._file = AppendOnly(path)
        self._waiting: list[str] = []
        self._lock = threading.Lock()

    def write(self, event: Event) -> None:
        """Append one line."""
        with self._lock:
            self._waiting.append(json.dumps(event) + "\n")
            try:
                self._file.append("".join(self._waiting).encode(), sync=False)
            except OSError as error:
                if not is_disk_full(error):
                    raise
            else:
                self._waiting.clear()

    def close(self, *, failed: bool) -> None:
        """Close the file."""
        self._file.close()


class RunLog:
    """Stamps events and hands them to every writer; a rank without writers logs nothing."""

    def __init__(self, writers: tuple[EventWriter, ...] = ()) -> None:
        self._writers = writers

    def event(self, name: str, **fields: Any) -> None:
        """Write one event now."""
        stamped = {"event": name, "time": time.time(), **fields}
        for writer in self._writers:
            writer.write(stamped)

    def close(self, *, failed: bool) -> None:
        """The run is over, well or not; every writer finishes."""
        for writer in self._writers:
            writer.close(failed=failed)


def read_events(path: Path) -> list[Event]:
    """Events of a run in order, without those that a later resume took back or a crash tore."""
    return events_in(path.read_text(encoding="utf-8")) if path.exists() else []


def events_in(text: str) -> list[Event]:
    """The same, of the last whole lines of a file."""
    events: list[Event] = []
    for line in text.splitlines():
        try:
            event = json.loads(line)
        except json.JSONDecodeError:
            continue  # the torn last line of a killed attempt, or one that is being written
        if event["event"] == "resume":
            events = [old for old in events if old.get("step", 0) <= event["step"]]
        events.append(event)
    return events
