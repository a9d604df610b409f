"""Where do the weights of a version lie? In shared memory, as a safetensors file laid out in advance.

    first rank: create --> every other rank: attach --> each writes its own boxes --> servers map it

Making pages is the hidden cost of shared memory (a first copy takes ten times a later one), so an
arena is created once, mapped once per rank with all its pages, and written over for every version.
Two arenas alternate: one is written while a slow reader may still be in the other.
"""

import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from apriel_mcore.bridge.layouts import Sizes
from apriel_mcore.bridge.tensorfile import Dtype, Dtypes, contents, lay_out
from apriel_mcore.errors import BridgeError, InputError


def torch_dtype(dtype: Dtype) -> torch.dtype:
    """torch's name of it."""
    return _TORCH_DTYPES[dtype]


_TORCH_DTYPES: dict[Dtype, torch.dtype] = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float32": torch.float32,
    "float8_e4m3": torch.float8_e4m3fn,
}


class Arena:
    """A writable safetensors file in memory. `views` are its tensors; writing to them writes the file."""

    def __init__(self, path: Path, mapping: mmap.mmap, *, owned: bool) -> None:
        self.path = path
        self.mapping = mapping
        """The whole file, header included."""
        self.views = tensor_views(mapping, where=str(path))
        self._owned = owned

    @property
    def sizes(self) -> dict[str, Sizes]:
        """Of its tensors."""
        return {name: tuple(view.shape) for name, view in self.views.items()}

    @property
    def dtypes(self) -> dict[str, Dtype]:
        """Of its tensors."""
        known: dict[torch.dtype, Dtype] = {dtype: name for name, dtype in _TORCH_DTYPES.items()}
        return {name: known[view.dtype] for name, view in self.views.items()}

    @classmethod
    def create(cls, path: Path, tensors: Mapping[str, Sizes], dtypes: Dtypes) -> Self:
        """A new file of `tensors`, zero throughout; replaces what a dead run left at `path`.

        InputError when the directory cannot hold it.
        """
        opening, size = lay_out(tensors, dtypes)
        try:
            path.unlink(missing_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, size)  # now, not as a bus error in mid-run
                file.write(opening)
                file.flush()
                return cls(path, _map_whole(file.fileno()), owned=True)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise InputError(f"{path}: cannot hold {size / 1e9:.2f} GB: {error.strerror}") from None

    @classmethod
    def attach(cls, path: Path) -> Self:
        """The file that the first rank created; BridgeError when it is not there."""
        try:
            with path.open("r+b") as file:
                return cls(path, _map_whole(file.fileno()), owned=False)
        except OSError as error:
            raise BridgeError(f"{path}: cannot map the arena of the first rank: {error.strerror}") from None

    def close(self) -> None:
        """Forget the views; the creator also removes the file. Memory goes with its last mapping."""
        self.views = {}
        if self._owned:
            self.path.unlink(missing_ok=True)


class ArenaPair:
    """Two arenas in turn."""

    def __init__(self, first: Arena, second: Arena) -> None:
        self._arenas = (first, second)
        self._turn = 0

    @classmethod
    def create(cls, directory: Path, name: str, tensors: Mapping[str, Sizes], dtypes: Dtypes) -> Self:
        """Two new files `NAME-0.safetensors` and `NAME-1.safetensors`.

        InputError, before anything is written, when `directory` has no room for both.
        """
        paths = _paths(directory, name)
        _check_room(directory, paths, 2 * lay_out(tensors, dtypes)[1])
        first = Arena.create(paths[0], tensors, dtypes)
        try:
            return cls(first, Arena.create(paths[1], tensors, dtypes))
        except InputError:
            first.close()
            raise

    @classmethod
    def attach(cls, directory: Path, name: str) -> Self:
        """The two files that the first rank created."""
        first, second = _paths(directory, name)
        return cls(Arena.attach(first), Arena.attach(second))

    @property
    def writable(self) -> Arena:
        """The one that no server was told to read last."""
        return self._arenas[self._turn]

    @property
    def both(self) -> tuple[Arena, Arena]:
        """In a fixed order."""
        return self._arenas

    def swap(self) -> None:
        """The arena just written has been announced: write to the other one next."""
        self._turn = 1 - self._turn

    def close(self) -> None:
        """Close both."""
        for arena in self._arenas:
            arena.close()


def tensor_views(file: mmap.mmap, *, where: str) -> dict[str, Tensor]:
    """The tensors of a mapped safetensors file, sharing its memory."""
    with memoryview(file) as whole:
        stored = contents(whole, where=where)
    return {
        name: torch.frombuffer(
            file,
            dtype=_TORCH_DTYPES[tensor.dtype],
            count=tensor.num_bytes // _TORCH_DTYPES[tensor.dtype].itemsize,
            offset=tensor.start,
        ).view(tensor.sizes)
        for name, tensor in stored.items()
    }


def _map_whole(descriptor: int) -> mmap.mmap:
    # MAP_POPULATE fills this process's page table in one call, so that no copy ever faults.
    return mmap.mmap(descriptor, 0, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)


def _paths(directory: Path, name: str) -> tuple[Path, Path]:
    return directory / f"{name}-0.safetensors", directory / f"{name}-1.safetensors"


def _check_room(directory: Path, replaced: tuple[Path, Path], needed: int) -> None:
    try:
        room = os.statvfs(directory)
    except OSError as error:
        raise InputError(f"{directory}: cannot hold the weight arenas: {error.strerror}") from None
    free = room.f_bavail * room.f_frsize + sum(path.stat().st_size for path in replaced if path.exists())
    if free < needed:
        raise InputError(
            f"{directory}: two weight arenas need {needed / 1e9:.2f} GB, {free / 1e9:.2f} GB are free; "
            "enlarge it, or set publish.directory to a larger in-memory file system"
        )
