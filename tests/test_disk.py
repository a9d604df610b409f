"""A full disk is told from other failures, waited for, and leaves no half record."""

import errno
import os
import threading
from pathlib import Path

import pytest

from apriel_mcore import disk
from tests.conftest import FullDisk


def test_a_full_disk_is_told_from_other_failures_through_wrappers() -> None:
    full = RuntimeError("unexpected pos")
    full.__context__ = OSError(errno.ENOSPC, "No space left on device")
    assert disk.is_disk_full(full)
    assert disk.is_disk_full(OSError(errno.EDQUOT, "Disk quota exceeded"))
    assert not disk.is_disk_full(OSError(errno.EIO, "Input/output error"))
    assert not disk.is_disk_full(RuntimeError("no"))


def test_a_write_is_tried_until_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "RETRY_S", 0.01)
    failures = [OSError(errno.ENOSPC, "full")] * 3

    def write() -> None:
        if failures:
            raise failures.pop()

    disk.patiently(write, where=tmp_path)
    assert not failures
    with pytest.raises(PermissionError):
        disk.patiently(lambda: (_ for _ in ()).throw(PermissionError()), where=tmp_path)


def test_a_record_without_room_is_cut_off(tmp_path: Path, full_disk: FullDisk) -> None:
    file = disk.AppendOnly(tmp_path / "file")
    file.append(b"one\n", sync=True)
    full_disk.after(2)
    with pytest.raises(OSError, match="No space"):
        file.append(b"two\n", sync=True)
    full_disk.never()
    file.append(b"three\n", sync=True)
    assert (tmp_path / "file").read_bytes() == b"one\nthree\n"


def test_what_is_appended_by_two_is_not_cut(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files = [disk.AppendOnly(path) for _ in range(2)]
    threads = [
        threading.Thread(target=lambda f=f: [f.append(b"x" * 50 + b"\n", sync=False) for _ in range(200)])
        for f in files
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() == (b"x" * 50 + b"\n") * 400


def test_a_new_files_name_is_on_disk_before_its_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def noting(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noting)
    path = tmp_path / "file"
    for _ in range(2):
        file = disk.AppendOnly(path)
        file.append(b"x\n", sync=True)
        file.close()
    assert synced == [str(tmp_path), str(path), str(path)]
