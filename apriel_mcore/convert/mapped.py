"""How are tensors read from a file? Where possible without a copy: the file's pages are their memory.

Pages are read when a stretch is mapped, so that a disk that fails is an error here and not a signal later.
"""

import mmap
import os
from collections.abc import Iterator
from errno import EINVAL
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from apriel_mcore.bridge.layouts import Sizes
from apriel_mcore.bridge.tensorfile import Dtype
from apriel_mcore.convert.scratch import TORCH_DTYPES, bytes_of
from apriel_mcore.errors import InputError

_MADV_POPULATE_READ = 22
"""From Linux's mman.h, since 5.14; Python has no name for it yet."""
_WINDOW = 1 << 26


def mapped(path: Path, start: int, sizes: Sizes, dtype: Dtype, *, what: str) -> Tensor:
    """A tensor in a file, which must not change while it is used; writing to it changes nothing there.

    InputError naming `what` when the file ends before, or cannot be read.
    """
    kind = TORCH_DTYPES[dtype]
    memory, offset = _map(path, start, prod(sizes) * kind.itemsize, what=what)
    return torch.frombuffer(memory, dtype=kind, count=prod(sizes), offset=offset).view(sizes)


def read_into(path: Path, start: int, into: Tensor, *, what: str) -> None:
    """Fill a contiguous tensor from a file; InputError as above."""
    with memoryview(bytes_of(into)) as target, path.open("rb", buffering=0) as file:
        done = 0
        while done < len(target):
            count = os.preadv(file.fileno(), [target[done:]], start + done)
            if count == 0:
                raise InputError(f"{path}: ends inside {what}, after {done} of {len(target)} bytes")
            done += count


def windows(path: Path, start: int, num_bytes: int, *, what: str) -> Iterator[memoryview]:
    """The bytes of a stretch of a file, part by part; each is valid until the next. InputError as above."""
    for done in range(0, num_bytes, _WINDOW):
        memory, offset = _map(path, start + done, min(_WINDOW, num_bytes - done), what=what)
        with memory, memoryview(memory) as whole, whole[offset:] as window:
            yield window


def _map(path: Path, start: int, num_bytes: int, *, what: str) -> tuple[mmap.mmap, int]:
    """A stretch of a file in memory, and where it begins there: mappings begin at a page."""
    offset = start % mmap.ALLOCATIONGRANULARITY
    with path.open("rb") as file:
        missing = start + num_bytes - os.fstat(file.fileno()).st_size
        if missing > 0:
            there = max(0, num_bytes - missing)
            raise InputError(f"{path}: ends inside {what}, after {there} of {num_bytes} bytes")
        # Private: torch asks for a writable buffer.
        memory = mmap.mmap(file.fileno(), offset + num_bytes, mmap.MAP_PRIVATE, offset=start - offset)
    try:
        memory.madvise(mmap.MADV_WILLNEED)  # large reads, where a fault alone would ask for small ones
        memory.madvise(_MADV_POPULATE_READ)
    except OSError as error:
        if error.errno != EINVAL:  # an older kernel: pages come when they are touched
            raise InputError(f"{path}: cannot read {what}: {error.strerror}") from None
    return memory, offset
