"""What has the feed decided and finished? An append-only file that a restarted run replays.

The scheduler is deterministic, so its calls and their answers are its whole history:

    dispatch  version, ticket                      what was asked
    resolve   group id, outcome, loss tokens       what came of it; a kept group stands here whole
    compose   version, force, group ids, stale     what was trained
    settle    version                              whose weights were published
    restart                                        what was in flight is lost and asked again

A finished group is on disk (fsync) before it counts. Each attempt and each checkpoint starts a new
segment, so a torn last line is only ever the last of its file.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal

import msgspec

from apriel_mcore.errors import InputError
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
    solve_rate: float
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


class Restarted(msgspec.Struct, frozen=True, tag="restart"):
    """An attempt began here: what the one before had in flight went back to its problems."""


Record = Dispatched | Resolved | Composed | Settled | Restarted

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Record)


class Journal:
    """A run's journal, open at a new segment; segments are numbered from 0 in the order of writing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.segment = 1 + max((_number(path) for path in _segments(folder)), default=-1)
        self._file = self._create()

    def append(self, record: Record) -> None:
        """Write one record; a resolved group and a composed batch are on disk when this returns."""
        self._file.write(_encoder.encode(record) + b"\n")
        self._file.flush()
        if isinstance(record, Resolved | Composed):
            os.fsync(self._file.fileno())

    def rotate(self) -> int:
        """Go on in a new segment; returns its number."""
        self._file.close()
        self.segment += 1
        self._file = self._create()
        return self.segment

    def _create(self) -> BinaryIO:
        return (self.folder / f"journal_{self.segment:06d}.jsonl").open("xb")

    def forget_before(self, segment: int) -> None:
        """Remove the segments that no checkpoint needs any more."""
        for path in _segments(self.folder):
            if _number(path) < segment:
                path.unlink()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def records_since(folder: Path, segment: int) -> list[Record]:
    """Records of this and all later segments, in order of writing. InputError when this one is gone."""
    first = min(map(_number, _segments(folder)), default=segment)
    if first > segment:
        raise InputError(
            f"{folder}: the checkpoint needs the journal from segment {segment} on, the oldest is {first}: "
            "take a later checkpoint, or start in a new run directory"
        )
    return [record for path in _segments(folder) if _number(path) >= segment for record in _records(path)]


def _segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("journal_*.jsonl"))


def _number(path: Path) -> int:
    return int(path.stem.removeprefix("journal_"))


def _records(path: Path) -> Iterator[Record]:
    """A torn last line (a crash while writing) is left out."""
    with path.open("rb") as lines:
        for line in lines:
            if line.endswith(b"\n"):
                yield _decoder.decode(line)
