"""What do we do when there is no room left on the disk? Say so, wait, and go on when there is.

Nothing is lost by waiting: who writes holds what is to be written, and what is half written is cut off.
"""

import errno
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_log = logging.getLogger(__name__)

RETRY_S = 1.0


def is_disk_full(error: BaseException | None) -> bool:
    """Was this, or what caused it, a write without room? Libraries wrap the system's error."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__ or error.__context__
    return False


def patiently(write: Callable[[], None], *, where: Path) -> None:
    """Call `write`, from its beginning, until there is room for it; other errors fly."""
    waited = False
    while True:
        try:
            write()
        except OSError as error:
            if not is_disk_full(error):
                raise
            if not waited:
                _log.error("%s: no space left on the disk; waiting until there is", where)
            waited = True
            time.sleep(RETRY_S)
        else:
            if waited:
                _log.warning("%s: there is space again", where)
            return


def sync_folder(folder: Path) -> None:
    """Names in it are on disk when this returns: a file's own fsync does not see to its name."""
    descriptor = os.open(folder, os.O_RDONLY)
    with suppress(OSError):  # some network file systems refuse it
        os.fsync(descriptor)
    os.close(descriptor)


class AppendOnly:
    """A file of whole lines: one that found no room leaves no trace of itself. One thread at a time."""

    def __init__(self, path: Path) -> None:
        """Open or create it; a line that a killed process tore is ended first."""
        self._descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        size = os.fstat(self._descriptor).st_size
        if not size:
            sync_folder(path.parent)
        elif os.pread(self._descriptor, 1, size - 1) != b"\n":
            self.append(b"\n", sync=False)

    def append(self, content: bytes, *, sync: bool) -> None:
        """All of `content`, on disk when `sync`; or OSError, and the file as it was before."""
        end = os.fstat(self._descriptor).st_size
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
            if sync:
                os.fsync(self._descriptor)
        except OSError:
            os.ftruncate(self._descriptor, end)
            raise

    def close(self) -> None:
        """Nothing is appended any more."""
        os.close(self._descriptor)
