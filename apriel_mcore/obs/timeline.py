"""When did each process do what? RUN_DIR/timeline/rank0.jsonl and so on, a line a step."""

import os
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from apriel_mcore.obs.runlog import open_lines
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
        self._file = open_lines(folder / f"rank{rank}.jsonl")
        self._who = {"rank": rank, "attempt": attempt, "host": platform.node(), "pid": os.getpid()}

    def write(self, step: int, spans: Sequence[Span]) -> None:
        """Append a line."""
        line = {"step": step, **self._who, "spans": spans}
        self._file.write(msgspec.json.encode(line) + b"\n")
        self._file.flush()


def read(folder: Path) -> Iterator[TimelineStep]:
    """Every line of every rank."""
    decoder = msgspec.json.Decoder(TimelineStep)
    for path in sorted(folder.glob("rank*.jsonl")):
        with path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):  # a killed attempt may have left a torn last one
                    yield decoder.decode(line)
