"""What has the feed decided and finished? An append-only file that a restarted run replays.

The scheduler is deterministic, so its calls and their answers are its whole history:

    dispatch  version, ticket                      what was asked
    resolve   group id, outcome, loss tokens       what came of it; a kept group stands here whole
    compose   version, force, group ids, stale     what was trained
    settle    version                              whose weights were published

A finished group is on disk (fsync) before it counts. Each checkpoint starts a new segment.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from apriel_mcore.types import Group, Outcome


class Dispatched(msgspec.Struct, frozen=True, tag="dispatch"):
    """The scheduler sent a problem out."""

    version: int
    group_id: int
    domain: str
    problem_id: str


class Resolved(msgspec.Struct, frozen=True, tag="resolve"):
    """A group came back."""

    group_id: int
    outcome: Outcome
    loss_tokens: int
    group: Group | Literal["dropped"]


class Composed(msgspec.Struct, frozen=True, tag="compose"):
    """A batch was taken."""

    version: int
    force: bool
    group_ids: tuple[int, ...]
    stale: tuple[int, ...]


class Settled(msgspec.Struct, frozen=True, tag="settle"):
    """The batch's weights are being served."""

    version: int


Record = Dispatched | Resolved | Composed | Settled

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Record)


class Journal:
    """The open segment of a run's journal."""

    def __init__(self, folder: Path, *, start: int) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._open(start)

    def _open(self, start: int) -> None:
        self.path = segment(self.folder, start)
        _cut_torn_line(self.path)
        self._file = self.path.open("ab")

    def append(self, record: Record) -> None:
        """Write one record; a resolved group and a composed batch are on disk when this returns."""
        self._file.write(_encoder.encode(record) + b"\n")
        self._file.flush()
        if isinstance(record, Resolved | Composed):
            os.fsync(self._file.fileno())

    def rotate(self, start: int, *, keep_from: int) -> None:
        """Go on in a new segment that begins at checkpoint `start`; drop segments before `keep_from`."""
        self._file.close()
        self._open(start)
        for old in self.folder.glob("journal_*.jsonl"):
            if _start_of(old) < keep_from:
                old.unlink()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def segment(folder: Path, start: int) -> Path:
    """File of the segment that begins at the checkpoint of step `start`."""
    return folder / f"journal_{start:06d}.jsonl"


def records_since(folder: Path, start: int) -> list[Record]:
    """Records written after the checkpoint of step `start`, over all later segments, in order."""
    segments = sorted(folder.glob("journal_*.jsonl"))
    return [record for path in segments if _start_of(path) >= start for record in _records(path)]


def newest_start(folder: Path) -> int:
    """Step at which the newest segment begins; 0 where there is none."""
    return max((_start_of(path) for path in folder.glob("journal_*.jsonl")), default=0)


def _start_of(path: Path) -> int:
    return int(path.stem.removeprefix("journal_"))


def _records(path: Path) -> Iterator[Record]:
    """A torn last line (a crash while writing) is left out."""
    with path.open("rb") as lines:
        for line in lines:
            if line.endswith(b"\n"):
                yield _decoder.decode(line)


def _cut_torn_line(path: Path) -> None:
    """Remove an incomplete last line, so that what is appended starts on a line of its own."""
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)
