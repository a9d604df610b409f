"""How is a checkpoint written while training goes on? One at a time, by a thread on every rank.

    begin (every rank)   stage to memory -> thread: write, read back          [training goes on]
    advance (every rank) all written? -> first rank: index, state, manifest, name

Collectives happen in `begin` and `advance` alone, on the threads that train; the writing thread calls none.
Waits: `advance(wait=True)` for every rank's thread; a thread on a full disk for space. Unblocked by: the
write's end or error; space. A full disk loses nothing: memory keeps the state until it is written.
"""

import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import msgspec
import torch.distributed as dist

from apriel_mcore import checkpoint_folder
from apriel_mcore.checkpoint_folder import STATE_FILE
from apriel_mcore.disk import is_disk_full
from apriel_mcore.errors import CheckpointError
from apriel_mcore.mcore import checkpoint
from apriel_mcore.mcore.learner import MegatronLearner
from apriel_mcore.mcore.parallel import Ranks
from apriel_mcore.mcore.staged import Staged, Written

RETRY_S = 2.0
"""Between two looks at a full disk."""
_POLL_S = 0.05
_GIB = 1 << 30


class Report(msgspec.Struct, frozen=True):
    """How far a rank is with its files."""

    state: Literal["writing", "no space", "written", "failed"]
    message: str = ""


class BackgroundSave:
    """Saves a learner's state under `root`; every rank holds one and calls it in step with the others."""

    def __init__(
        self, root: Path, learner: MegatronLearner, *, ranks: Ranks, tell: Callable[[str], None]
    ) -> None:
        self._root = root
        self._learner = learner
        self._ranks = ranks
        self._tell = tell
        self._pending: _Pending | None = None
        self._said_full = False
        self._closing = threading.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")

    def begin(self, step: int, loop_state: dict[str, Any]) -> None:
        """Stage the state of now and start to write it; `loop_state` is the first rank's and must be JSON.

        Nothing may be in progress.
        """
        assert self._pending is None, "one checkpoint at a time"
        folder = checkpoint_folder.folder_of(self._root, step)
        partial = checkpoint_folder.partial_of(folder)
        while not self._first_rank_did(lambda: _make_empty(partial)):
            time.sleep(RETRY_S)
        staged = checkpoint.stage(partial, self._learner)
        waits_for_space = threading.Event()
        self._pending = _Pending(
            folder=folder,
            state=msgspec.json.encode({"step": step, "loop": loop_state}).decode(),
            staged=staged,
            waits_for_space=waits_for_space,
            written=self._thread.submit(self._write, staged, waits_for_space),
        )

    def advance(self, *, wait: bool) -> bool:
        """True when a checkpoint was completed by this call; with `wait`, only when nothing is in progress.

        CheckpointError on every rank when one could not write.
        """
        pending = self._pending
        while pending:
            if self._all_written(pending) and self._seal(pending):
                self._pending = None
                return True
            if not wait:
                return False
            time.sleep(_POLL_S)
        return False

    def close(self) -> None:
        """End the thread; what is not complete by now never will be."""
        self._closing.set()
        self._thread.shutdown(wait=True)

    # --- the writing thread ----------------------------------------------------------------------

    def _write(self, staged: Staged, waits_for_space: threading.Event) -> Written:
        while True:
            try:
                return staged.write()
            except (OSError, RuntimeError) as error:  # torch wraps the system's error in its own
                if not is_disk_full(error):
                    raise
            staged.discard_files()
            waits_for_space.set()
            self._wait_for_space(staged.num_bytes)
            waits_for_space.clear()

    def _wait_for_space(self, num_bytes: int) -> None:
        while not self._closing.wait(RETRY_S):
            if shutil.disk_usage(self._root).free > num_bytes:
                return
        raise CheckpointError("the run ended while the disk was full")

    # --- the threads that train ------------------------------------------------------------------

    def _all_written(self, pending: "_Pending") -> bool:
        reports_R = [
            msgspec.json.decode(one, type=Report)
            for one in self._ranks.gather(msgspec.json.encode(pending.report()))
        ]
        failures = [
            f"rank {rank}: {one.message}" for rank, one in enumerate(reports_R) if one.state == "failed"
        ]
        if failures:
            self._pending = None
            raise CheckpointError(
                f"{pending.folder}: not saved ({'; '.join(failures)}); older checkpoints are untouched"
            )
        self._say_if_full(any(one.state == "no space" for one in reports_R))
        return all(one.state == "written" for one in reports_R)

    def _seal(self, pending: "_Pending") -> bool:
        """Index, state, manifest, name; False when the first rank found no space for them."""
        mine = pending.written.result()
        written_R: list[Written] = [mine] * dist.get_world_size()
        dist.all_gather_object(written_R, mine)
        return self._first_rank_did(lambda: _complete(pending, written_R))

    def _first_rank_did(self, work: Callable[[], None]) -> bool:
        """The first rank works on files; False when the disk was full, CheckpointError when it failed."""
        report = Report("written")
        if self._ranks.is_first:
            try:
                work()
            except OSError as error:
                report = Report("no space" if is_disk_full(error) else "failed", str(error))
        report = msgspec.json.decode(self._ranks.broadcast(msgspec.json.encode(report)), type=Report)
        if report.state == "failed":
            raise CheckpointError(f"{self._root}: {report.message}; older checkpoints are untouched")
        self._say_if_full(report.state == "no space")
        return report.state == "written"

    def _say_if_full(self, is_full: bool) -> None:
        if is_full and not self._said_full:
            free = shutil.disk_usage(self._root).free / _GIB
            self._tell(
                f"{self._root}: the disk is full ({free:.2f} GiB free), the checkpoint waits in memory: free "
                "some space and the run goes on by itself; it stands still when the next checkpoint is due"
            )
        if self._said_full and not is_full:
            self._tell(f"{self._root}: there is space again, the checkpoint is being written")
        self._said_full = is_full


class _Pending(msgspec.Struct, frozen=True, kw_only=True):
    """The checkpoint in progress."""

    folder: Path
    state: str
    staged: Staged
    waits_for_space: threading.Event
    written: Future[Written]

    def report(self) -> Report:
        if not self.written.done():
            return Report("no space" if self.waits_for_space.is_set() else "writing")
        error = self.written.exception()
        return Report("failed", f"{type(error).__name__}: {error}") if error else Report("written")


def _make_empty(partial: Path) -> None:
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)


def _complete(pending: _Pending, written_R: list[Written]) -> None:
    partial = checkpoint_folder.partial_of(pending.folder)
    pending.staged.finish([written.results for written in written_R])
    checkpoint_folder.write_synced(partial / STATE_FILE, pending.state)
    sums = {name: one for written in written_R for name, one in written.sums.items()}
    checkpoint_folder.seal(partial, pending.folder, sums)
