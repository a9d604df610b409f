"""What is in one record of a checkpoint's file, and where? It is an archive of torch.save's.

torch.load says what it holds and where; the checksums, which torch.load does not look at, are compared here.
"""

import io
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Buffer, Generator
from contextlib import contextmanager
from math import prod
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.checkpoint.filesystem import _StorageInfo

from apriel_mcore.bridge.layouts import Sizes
from apriel_mcore.convert.scratch import bytes_of
from apriel_mcore.errors import InputError

DAMAGE = (
    AttributeError,
    EOFError,
    ImportError,
    IndexError,
    KeyError,
    MemoryError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
"""What the readers of a damaged pickle or zip archive raise."""


class _Damaged(Exception):
    """A record is not what it should be; in what."""


class _Record(io.RawIOBase):
    """The part of a file that one record takes up, as a file of its own."""

    def __init__(self, path: Path, info: _StorageInfo) -> None:
        self._file = path.open("rb", buffering=0)
        self._start, self._length, self._at = info.offset, info.length, 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Counted from the start or the end of the record."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._length}[whence]
        if base + offset < 0:
            raise ValueError(f"{base + offset} lies before the record")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: Buffer, /) -> int:
        """Up to the end of the record."""
        with memoryview(buffer) as view:
            room = max(0, min(len(view), self._length - self._at))
            count = os.preadv(self._file.fileno(), [view[:room]], self._start + self._at)
        self._at += count
        return count

    def close(self) -> None:
        """The file too."""
        self._file.close()
        super().close()


@contextmanager
def naming(path: Path, what: str) -> Generator[None]:
    """Whatever the readers say of a damaged record becomes an InputError with its place; `what` is in it."""
    try:
        yield
    except _Damaged as error:
        raise InputError(f"{path}: {what}: {error}") from None
    except DAMAGE as error:
        raise InputError(f"{path}: {what}: the record is damaged: {error!r}") from None


def start_in(path: Path, info: _StorageInfo, sizes: Sizes, dtype: torch.dtype) -> int:
    """Where a record's elements lie in the file, which is torch.load's word; _Damaged if they are others."""
    with _Record(path, info) as record:
        described = torch.load(io.BufferedReader(record), map_location="meta", weights_only=True)
    if not (
        isinstance(described, Tensor)
        and (tuple(described.shape), described.dtype) == (sizes, dtype)
        and described.is_contiguous()
        and described.storage_offset() == 0
        and described.untyped_storage().nbytes() == prod(sizes) * dtype.itemsize
    ):
        raise _Damaged(f"the record is not the {sizes} {dtype} that it should be")
    start = described.untyped_storage()._checkpoint_offset
    assert start is not None, "torch.load says where a record lies"
    return info.offset + start


def check_sums(path: Path, info: _StorageInfo, elements: Tensor) -> None:
    """Compare every checksum (CRC-32) of the record, which torch.load does not look at; _Damaged if one is
    wrong, or if there are none."""
    with _Record(path, info) as record, zipfile.ZipFile(io.BufferedReader(record)) as archive:
        if not any(member.CRC for member in archive.infolist()):
            raise _Damaged(
                "the record was written without checksums, and its digest is in no conversion.json: put back "
                "the one that convert wrote there"
            )
        for member in archive.infolist():
            if member.filename.endswith("/data/0"):
                if (member.file_size, member.CRC) != (elements.nbytes, zlib.crc32(bytes_of(elements))):
                    raise _Damaged(f"the record is damaged: wrong checksum of {member.filename}")
            else:
                archive.read(member)
