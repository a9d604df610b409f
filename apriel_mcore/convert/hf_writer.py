"""How are weights written as safetensors files of a bounded size, tensor by tensor?

    parameters --plan_files--> files of at most N bytes --growing, put--> model-00001-of-00003.safetensors

A file's header is written before any tensor, so that each tensor has its place, and the file gets its name
when all of it is on disk.
"""

import ctypes
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from threading import Lock
from typing import Any

import msgspec
from torch import Tensor

from apriel_mcore.bridge.layouts import Sizes
from apriel_mcore.bridge.tensorfile import Dtype, lay_out
from apriel_mcore.convert.digest import digest_in_file
from apriel_mcore.convert.hf_folder import INDEX_FILE
from apriel_mcore.convert.parameters import Parameter
from apriel_mcore.convert.scratch import TORCH_DTYPES, bytes_of

PIECE = 1 << 17
"""Bytes of one write: larger ones make the kernel look for huge free pages, which are the untouched ones. On
a virtual machine, whose host has to find and clear them first, that took up to ten times as long."""
_LIBC = ctypes.CDLL(None)
_SYNC_FILE_RANGE_WRITE = 2
"""From Linux's fcntl.h."""


class WeightFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file of the folder, and where each of its tensors will lie."""

    name: str
    parameters: tuple[Parameter, ...]
    tensors: dict[str, Sizes]
    opening: bytes
    size: int
    """Bytes of the whole file."""
    starts: dict[str, int]
    dtype: Dtype

    def digest_of(self, name: str, path: Path) -> str:
        """Of one tensor, in the file as it lies at `path`; InputError when that one ends before."""
        num_bytes = _num_bytes(self.tensors[name], self.dtype)
        return digest_in_file(path, self.starts[name], num_bytes, what=name)


def plan_files(parameters: Sequence[Parameter], dtype: Dtype, max_bytes: int) -> list[WeightFile]:
    """The model's tensors in the table's order; a parameter's tensors share a file, which is larger than
    `max_bytes` only if it holds a single one."""
    groups: list[list[Parameter]] = [[]]
    held = 0
    for parameter in parameters:
        size = sum(_num_bytes(sizes, dtype) for sizes in parameter.hf_sizes.values())
        if groups[-1] and held + size > max_bytes:
            groups.append([])
            held = 0
        groups[-1].append(parameter)
        held += size
    return [_file(number, len(groups), group, dtype) for number, group in enumerate(groups, start=1)]


class GrowingFile:
    """A file with its header in place, to be filled in any order by any thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._turn = Lock()

    def put(self, start: int, tensor: Tensor) -> None:
        """A contiguous tensor's bytes, on their way to the disk when this returns."""
        with memoryview(bytes_of(tensor)) as source:
            descriptor = os.open(self.path, os.O_WRONLY)
            try:
                done = 0
                while done < len(source):
                    with self._turn:  # the kernel allows one writer a file, and others would spin
                        done += os.pwrite(descriptor, source[done : done + PIECE], start + done)
                _begin_write_back(descriptor, start, done)
            finally:
                os.close(descriptor)


@contextmanager
def growing(folder: Path, file: WeightFile) -> Iterator[GrowingFile]:
    """The file under another name; it gets its own when the block ends well and all of it is on disk."""
    partial = folder / f"{file.name}.partial"
    with partial.open("wb") as stream:
        stream.write(file.opening)
        stream.flush()
        os.posix_fallocate(stream.fileno(), 0, file.size)  # no room: now, not in the middle
        yield GrowingFile(partial)
        os.fsync(stream.fileno())
    partial.rename(folder / file.name)


def _begin_write_back(descriptor: int, start: int, length: int) -> None:
    """Have the disk take these bytes while the next ones are made; `growing` waits for them all.

    A hint, which a file system may refuse: that nothing is lost is the business of fsync.
    """
    _LIBC.sync_file_range(descriptor, ctypes.c_int64(start), ctypes.c_int64(length), _SYNC_FILE_RANGE_WRITE)


def write_index(folder: Path, files: Sequence[WeightFile], dtype: Dtype) -> None:
    """Which tensor is in which file; a single file needs no index."""
    if len(files) == 1:
        return
    total = sum(_num_bytes(sizes, dtype) for file in files for sizes in file.tensors.values())
    placed = {name: file.name for file in files for name in file.tensors}
    index: Mapping[str, Any] = {"metadata": {"total_size": total}, "weight_map": placed}
    (folder / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _file(number: int, count: int, parameters: list[Parameter], dtype: Dtype) -> WeightFile:
    tensors = {name: sizes for parameter in parameters for name, sizes in parameter.hf_sizes.items()}
    opening, size = lay_out(tensors, dtype)
    starts: dict[str, int] = {}
    offset = len(opening)
    for name, sizes in tensors.items():
        starts[name] = offset
        offset += _num_bytes(sizes, dtype)
    return WeightFile(
        name="model.safetensors" if count == 1 else f"model-{number:05}-of-{count:05}.safetensors",
        parameters=tuple(parameters),
        tensors=tensors,
        opening=opening,
        size=size,
        starts=starts,
        dtype=dtype,
    )


def _num_bytes(sizes: Sizes, dtype: Dtype) -> int:
    return prod(sizes) * TORCH_DTYPES[dtype].itemsize
