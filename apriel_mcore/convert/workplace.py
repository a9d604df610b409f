"""Where does a result grow, so that nothing half-written is ever taken for whole?

    DST.partial/  every part renamed when whole, noted in the journal  --all on disk, rename-->  DST/

A refusal removes what was begun; an interruption leaves it for the next call, and so does a parity check
that could not run. A call that finds its work done reads it back (results.py).
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from apriel_mcore.convert import report, results
from apriel_mcore.convert.journal import Finished, Journal
from apriel_mcore.convert.report import Job, Parity, Report
from apriel_mcore.convert.results import Result
from apriel_mcore.errors import AprielError, InputError, ProbeError


class Workplace(msgspec.Struct, frozen=True, kw_only=True):
    """The folder that a result grows in."""

    job: Job
    folder: Path
    journal: Journal
    began: float
    """On the monotonic clock."""

    def write_report(
        self, result: Result, parts: Sequence[Finished], *, parity: Parity, dropped: tuple[str, ...]
    ) -> Report:
        """The last thing that is put into the folder, which holds all of `result`."""
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
            files=results.around_tensors(result),
            tensors=tensors,
        )
        report.write(made, self.folder)
        return made


def finished_report(
    result: Result, job: Job, *, source: Callable[[], Mapping[str, str]], compare: Callable[[], Parity]
) -> Report | None:
    """The report of this very job if it was finished before, read back; None if the folder does not exist.

    source: digests of the source's tensors as they are now. compare: makes up for a parity check that has
    not run. InputError when the folder is anything else, or not what its report says, or made of tensors that
    the source holds no more.
    """
    target = result.folder
    if not target.exists():
        return None
    earlier = report.read(target) if target.is_dir() else None
    if earlier is None or earlier.job.digest != job.digest:
        raise InputError(f"{target}: exists and is not the result of this conversion; give another folder")
    results.check(result, earlier)
    results.check_source(result, earlier, source())
    if earlier.parity.status == "skipped":
        earlier = msgspec.structs.replace(earlier, parity=_compare_late(target, compare))
        if earlier.parity.status == "passed":
            _replace_report(earlier, target)
    return msgspec.structs.replace(earlier, found_finished=True)


def _compare_late(target: Path, compare: Callable[[], Parity]) -> Parity:
    try:
        return compare()
    except ProbeError as error:
        raise ProbeError(
            f"{error}; {target} was finished before and read back again, --no-probe asks for no more"
        ) from None


def _replace_report(made: Report, target: Path) -> None:
    """A report that is whole at any moment."""
    with TemporaryDirectory(dir=target.absolute().parent, prefix=f"{target.name}.report-") as folder:
        report.write(made, Path(folder))
        sync_all(Path(folder))
        (Path(folder) / report.REPORT_FILE).rename(target / report.REPORT_FILE)
    _sync(target)


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
        sync_all(partial)
        partial.rename(target)
        _sync(target.absolute().parent)
        journal.remove_from(target)
    except ProbeError as error:
        raise ProbeError(
            f"{error}; the weights are written and kept in {partial}: the same call goes on from there, "
            "--no-probe leaves the check out"
        ) from None
    except AprielError:
        shutil.rmtree(partial)
        raise
    finally:
        journal.close()


def partial_of(target: Path) -> Path:
    """Its name while it grows."""
    return target.with_name(target.name + ".partial")


def sync_all(folder: Path) -> None:
    """Every file in a folder and below, and their names, on disk; what is there already costs nothing."""
    for path in [*folder.rglob("*"), folder]:
        _sync(path)


def _sync(path: Path) -> None:
    """A file's bytes or a folder's names, on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
