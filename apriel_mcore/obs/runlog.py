"""What happened? events.jsonl is append-only and the source of truth for every view.

A resumed run appends a `resume` event; steps after the resumed one that an earlier attempt wrote are
dropped by `read_events`, so that each step counts once.
"""

import json
import os
import time
from pathlib import Path
from typing import Any, BinaryIO, Protocol

Event = dict[str, Any]


class EventWriter(Protocol):
    """A place that events go to."""

    def write(self, event: Event) -> None:
        """Take one event; must not block the run for long."""
        ...

    def close(self, *, failed: bool) -> None:
        """The run is over, well or not."""
        ...


def open_lines(path: Path) -> BinaryIO:
    """A file of lines to append to; a line that a killed attempt tore is ended first."""
    file = path.open("ab+")
    if file.tell():
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.write(b"\n")
    return file


class JsonlWriter:
    """events.jsonl: one object a line, flushed as written."""

    def __init__(self, path: Path) -> None:
        self._file = open_lines(path)

    def write(self, event: Event) -> None:
        """Append one line."""
        self._file.write(json.dumps(event).encode() + b"\n")
        self._file.flush()

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
    events: list[Event] = []
    if not path.exists():
        return events
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            event = json.loads(line)
        except json.JSONDecodeError:
            continue  # the torn last line of a killed attempt
        if event["event"] == "resume":
            events = [old for old in events if old.get("step", 0) <= event["step"]]
        events.append(event)
    return events
