"""What has an interrupted conversion already finished, so that the next call can go on?

    DST.partial/.journal.jsonl: first the job, then a line for each finished part, written behind it

A line counts when it is complete; the caller checks that what it promises is still there. The folder is
held by a lock while a process works in it.
"""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Self

import msgspec

from apriel_mcore.convert.report import TensorRecord
from apriel_mcore.errors import InputError

_FILE = ".journal.jsonl"


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a record of a checkpoint lies."""

    key: str
    offsets: tuple[int, ...] | None
    """None: an object, not a box of a tensor."""
    file: str
    start: int
    length: int


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """One part of the result, written and read back."""

    part: str
    tensors: tuple[TensorRecord, ...]
    places: tuple[Place, ...] = ()


class _Job(msgspec.Struct, frozen=True):
    job: str


class Journal:
    """The finished parts of one job, in order."""

    def __init__(self, path: Path, job: str) -> None:
        self._file = path.open("a+b")
        self._one_at_a_time = Lock()
        self._finished: dict[str, Finished] = {}
        self.taken_over = 0
        """Parts of an earlier call that were intact."""
        self._lock(path)
        self._file.seek(0)
        lines = self._file.read().split(b"\n")
        whole = lines[:-1]  # the last is empty, or was being written
        self._file.truncate(sum(len(line) + 1 for line in whole))
        if whole:
            self._resume(path, whole, job)
        else:
            self._append(_Job(job))

    @classmethod
    def open(cls, partial: Path, job: str) -> Self:
        """Start in a new folder, or go on in one; InputError when it belongs to another job or process."""
        path = partial / _FILE
        if partial.exists() and not path.exists() and any(partial.iterdir()):
            raise InputError(
                f"{partial}: exists and is no unfinished conversion; remove it or convert elsewhere"
            )
        partial.mkdir(parents=True, exist_ok=True)
        return cls(path, job)

    def part(
        self, name: str, is_intact: Callable[[Finished], bool], write: Callable[[], Finished]
    ) -> Finished:
        """A part that an earlier call finished, if it is still intact; otherwise written now. Threads may
        call it for different parts."""
        earlier = self._finished.get(name)
        if earlier is not None and is_intact(earlier):
            with self._one_at_a_time:
                self.taken_over += 1
            return earlier
        finished = write()
        with self._one_at_a_time:
            self._append(finished)
        return finished

    def remove_from(self, target: Path) -> None:
        """The job is done, its folder renamed."""
        (target / _FILE).unlink()

    def close(self) -> None:
        """Let go of the folder."""
        self._file.close()

    def _lock(self, path: Path) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise InputError(f"{path.parent}: another process is converting into it; wait for it") from None

    def _resume(self, path: Path, lines: list[bytes], job: str) -> None:
        try:
            found = msgspec.json.decode(lines[0], type=_Job).job
            entries = [msgspec.json.decode(line, type=Finished) for line in lines[1:]]
        except msgspec.DecodeError as error:
            raise InputError(f"{path}: damaged ({error}); remove {path.parent} and convert again") from None
        if found != job:
            raise InputError(
                f"{path.parent}: holds an unfinished conversion of another source, config or layout; "
                "remove it or convert elsewhere"
            )
        self._finished = {entry.part: entry for entry in entries}

    def _append(self, record: msgspec.Struct) -> None:
        self._file.write(msgspec.json.encode(record) + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
