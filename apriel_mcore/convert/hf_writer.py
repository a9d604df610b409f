"""How are weights written as safetensors files of a bounded size, tensor by tensor?

    parameters --plan_files--> files of at most N bytes --growing, put--> model-00001-of-00003.safetensors

A file's header is written before any tensor, so that each tensor has its place, and the file gets its name
when all of it is on disk.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import msgspec
from torch import Tensor

from apriel_mcore.bridge.layouts import Sizes
from apriel_mcore.bridge.tensorfile import Dtype, lay_out
from apriel_mcore.convert.hf_folder import INDEX_FILE
from apriel_mcore.convert.parameters import Parameter
from apriel_mcore.convert.scratch import TORCH_DTYPES, bytes_of


class WeightFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file of the folder, and where each of its tensors will lie."""

    name: str
    parameters: tuple[Parameter, ...]
    tensors: dict[str, Sizes]
    opening: bytes
    size: int
    """Bytes of the whole file."""
    starts: dict[str, int]


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


@contextmanager
def growing(folder: Path, file: WeightFile) -> Iterator[Path]:
    """The file under another name, header in place, to be filled by `put` in any order; it gets its own
    name when the block ends well."""
    partial = folder / f"{file.name}.partial"
    with partial.open("wb") as stream:
        stream.write(file.opening)
        stream.truncate(file.size)
        stream.flush()
        yield partial
        os.fsync(stream.fileno())
    partial.rename(folder / file.name)


def put(path: Path, start: int, tensor: Tensor) -> None:
    """A contiguous tensor's bytes into a growing file."""
    with memoryview(bytes_of(tensor)) as source:
        descriptor = os.open(path, os.O_WRONLY)
        try:
            done = 0
            while done < len(source):
                done += os.pwrite(descriptor, source[done:], start + done)
        finally:
            os.close(descriptor)


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
    )


def _num_bytes(sizes: Sizes, dtype: Dtype) -> int:
    return prod(sizes) * TORCH_DTYPES[dtype].itemsize
