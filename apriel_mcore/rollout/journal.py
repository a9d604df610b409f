"""What has the feed decided and finished? An append-only file that a restarted run replays.

The scheduler is deterministic, so its calls and their answers are its whole history:

    dispatch  version, ticket                      what was asked
    resolve   group id, outcome, loss tokens       what came of it; a kept group stands here whole
    compose   version, force, group ids, stale     what was trained
    settle    version                              whose weights were published
    restart                                        what was in flight is lost and asked again

    append --> queue --thread--> written together, one fsync for all --> durable()

A thread writes what is appended, in that order, so the disk always holds a prefix of the history. A finished
group is on disk (fsync) before a batch may be trained that holds it: both stand in one file, and a composed
batch waits for its fsync. A full disk stalls the thread, and with it whoever waits for `durable`; what is
half written is cut off, and written again when there is space. Each attempt and each checkpoint starts a new
segment, so a torn last line is only ever the last of its file.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Literal

import msgspec

from apriel_mcore.disk import RETRY_S, AppendOnly, is_disk_full
from apriel_mcore.errors import CheckpointError, InputError
from apriel_mcore.types import Group, Outcome


class Dispatched(msgspec.Struct, frozen=True, tag="dispatch"):
    """The scheduler sent a problem out."""

    version: int
    group_id: int
    domain: str
    problem_id: str


class Resolved(msgspec.Struct, gc=False, frozen=True, tag="resolve"):
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


class _Line(msgspec.Struct, gc=False, frozen=True):
    """A record on its way to the disk."""

    segment: int
    content: bytes
    sync: bool


type _Waiter = tuple[int, asyncio.AbstractEventLoop, asyncio.Future[None]]
"""How many lines it waits for, and where."""


class Journal:
    """A run's journal, open at a new segment; segments are numbered from 0 in the order of writing.

    `tell` is called, on the writing thread, when the disk is full and when it no longer is.
    """

    def __init__(self, folder: Path, *, tell: Callable[[str], None]) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.segment = 1 + max((_number(path) for path in _segments(folder)), default=-1)
        self.stalled = False
        """There is no space on the disk."""
        self._tell = tell
        self._queue: deque[_Line] = deque()
        self._num_appended = self._num_durable = 0
        self._waiters: deque[_Waiter] = deque()
        self._failure: CheckpointError | None = None
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._write_forever, name="journal", daemon=True)
        self._thread.start()

    def append(self, record: Record) -> None:
        """Line a record up; it is on disk after `durable`."""
        sync = isinstance(record, Resolved | Composed)
        line = _Line(self.segment, _encoder.encode(record) + b"\n", sync)
        with self._changed:
            self._queue.append(line)
            self._num_appended += 1
            self._changed.notify()

    async def durable(self) -> None:
        """Until all that was appended is on disk. CheckpointError when it cannot be written."""
        loop = asyncio.get_running_loop()
        with self._changed:
            if self._failure:
                raise self._failure
            if self._num_durable == self._num_appended:
                return
            future = loop.create_future()
            self._waiters.append((self._num_appended, loop, future))
        await future

    def rotate(self) -> int:
        """What is appended from now on goes to a new segment; its number."""
        self.segment += 1
        return self.segment

    def forget_before(self, segment: int) -> None:
        """Remove the segments that no checkpoint needs any more."""
        for path in _segments(self.folder):
            if _number(path) < segment:
                path.unlink()

    def close(self) -> None:
        """Write what is lined up, unless there is no space, and close the file."""
        with self._changed:
            self._closing.set()
            self._changed.notify()
        self._thread.join()

    # --- the writing thread ----------------------------------------------------------------------

    def _write_forever(self) -> None:
        try:
            while lines := self._next_lines():
                for segment, part in groupby(lines, key=lambda line: line.segment):
                    self._write(segment, list(part))
                self._release(len(lines))
        except OSError as error:
            self._fail(CheckpointError(f"{self.folder}: the journal cannot be written: {error}"))

    def _next_lines(self) -> list[_Line]:
        """All that is lined up; nothing when the journal is closed."""
        with self._changed:
            while not self._queue and not self._closing.is_set():
                self._changed.wait()
            lines = list(self._queue)
            self._queue.clear()
        return lines

    def _write(self, segment: int, lines: Sequence[_Line]) -> None:
        """One write, one fsync; again and again while the disk is full."""
        content, sync = b"".join(line.content for line in lines), any(line.sync for line in lines)
        while True:
            try:
                self._append(segment, content, sync=sync)
                break
            except OSError as error:
                if not is_disk_full(error) or self._closing.is_set():
                    raise
            if not self.stalled:
                self.stalled = True
                self._tell(
                    f"{self.folder}: the disk is full, finished groups wait and nothing new is asked: "
                    "free some space and the run goes on by itself"
                )
            self._closing.wait(RETRY_S)
        if self.stalled:
            self.stalled = False
            self._tell(f"{self.folder}: there is space again, the run goes on")

    def _append(self, segment: int, content: bytes, *, sync: bool) -> None:
        file = AppendOnly(self.folder / f"journal_{segment:06d}.jsonl")
        try:
            file.append(content, sync=sync)
        finally:
            file.close()

    def _release(self, num_lines: int) -> None:
        """Wake who waited for these lines; one call for each event loop, of which there is one."""
        with self._changed:
            self._num_durable += num_lines
            ready = []
            while self._waiters and self._waiters[0][0] <= self._num_durable:
                ready.append(self._waiters.popleft())
        for loop, waiters in groupby(ready, key=lambda waiter: waiter[1]):
            _call(loop, _settle, [future for _, _, future in waiters])

    def _fail(self, error: CheckpointError) -> None:
        with self._changed:
            self._failure = error
            waiters = list(self._waiters)
            self._waiters.clear()
        for _, loop, future in waiters:
            _call(loop, _break, future, error)


def _call(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *args: object) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(function, *args)


def _settle(futures: Sequence[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)


def _break(future: asyncio.Future[None], error: CheckpointError) -> None:
    if not future.done():
        future.set_exception(error)


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
