"""When did each process do what? RUN_DIR/timeline/rank0.jsonl and so on, a line a step."""

import os
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from apriel_mcore.disk import AppendOnly, patiently
from apriel_mcore.obs.spans import Span


class TimelineStep(msgspec.Struct, frozen=True, kw_only=True):
    """What ended during one step, as seen by one trainer rank."""

    step: int
    rank: int
    attempt: int
    host: str
    pid: int
    spans: list[Span]


class Timeline:
    """The file of one rank."""

    def __init__(self, folder: Path, *, rank: int, attempt: int) -> None:
        folder.mkdir(exist_ok=True)
        self._path = folder / f"rank{rank}.jsonl"
        self._file = AppendOnly(self._path)
        self._who = {"rank": rank, "attempt": attempt, "host": platform.node(), "pid": os.getpid()}

    def write(self, step: int, spans: Sequence[Span]) -> None:
        """Append a line."""
        line = msgspec.json.encode({"step": step, **self._who, "spans": spans}) + b"\n"
        patiently(lambda: self._file.append(line, sync=False), where=self._path)


def read(folder: Path) -> Iterator[TimelineStep]:
    """Every line of every rank."""
    decoder = msgspec.json.Decoder(TimelineStep)
    for path in sorted(folder.glob("rank*.jsonl")):
        with path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):  # a killed attempt may have left a torn last one
                    yield decoder.decode(line)
