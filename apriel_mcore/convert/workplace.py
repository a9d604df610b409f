"""Where does a result grow, so that nothing half-written is ever taken for whole?

    DST.partial/  every part renamed when whole, noted in the journal  --all there, rename-->  DST/

A refusal removes what was begun; an interruption leaves it for the next call.
"""

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from apriel_mcore.convert import report
from apriel_mcore.convert.journal import Finished, Journal
from apriel_mcore.convert.report import Job, Parity, Report
from apriel_mcore.errors import AprielError, InputError


class Workplace(msgspec.Struct, frozen=True, kw_only=True):
    """The folder that a result grows in."""

    job: Job
    folder: Path
    journal: Journal
    began: float
    """On the monotonic clock."""

    def write_report(self, parts: Sequence[Finished], *, parity: Parity, dropped: tuple[str, ...]) -> Report:
        """The last thing that is put into the folder."""
        tensors = tuple(record for part in parts for record in part.tensors)
        made = Report(
            job=self.job,
            num_tensors=len(tensors),
            num_bytes=sum(record.num_bytes for record in tensors),
            seconds=time.monotonic() - self.began,
            peak_rss_bytes=report.peak_rss(),
            parts_taken_over=self.journal.taken_over,
            parity=parity,
            dropped=dropped,
            tensors=tensors,
        )
        report.write(made, self.folder)
        return made


def finished_report(target: Path, job: Job) -> Report | None:
    """The report of this very job if `target` is its result; InputError when it is anything else."""
    if not target.exists():
        return None
    earlier = report.read(target) if target.is_dir() else None
    if earlier is None or earlier.job.digest != job.digest:
        raise InputError(f"{target}: exists and is not the result of this conversion; give another folder")
    return earlier


def check_room(target: Path, needed: int) -> None:
    """InputError when the file system cannot hold the result."""
    existing = target.absolute()
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    begun = sum(path.stat().st_size for path in partial_of(target).rglob("*") if path.is_file())
    if free + begun < needed:
        raise InputError(
            f"{target}: needs {needed / 1e9:.2f} GB, {free / 1e9:.2f} GB are free in {existing}; "
            "free some space or choose another place"
        )


@contextmanager
def workplace(target: Path, job: Job) -> Iterator[Workplace]:
    """The folder that becomes `target` when the block ends well."""
    partial = partial_of(target)
    began = time.monotonic()
    journal = Journal.open(partial, job.digest)
    try:
        yield Workplace(job=job, folder=partial, journal=journal, began=began)
        _sync(partial)
        partial.rename(target)
        _sync(target.absolute().parent)
        journal.remove_from(target)
    except AprielError:
        shutil.rmtree(partial)
        raise
    finally:
        journal.close()


def partial_of(target: Path) -> Path:
    """Its name while it grows."""
    return target.with_name(target.name + ".partial")


def _sync(folder: Path) -> None:
    """The names in a folder, on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
