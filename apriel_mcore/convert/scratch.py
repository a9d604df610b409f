"""Memory for one tensor at a time, used again for the next: what bounds a conversion's resident size."""

from collections.abc import Buffer
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from apriel_mcore.bridge.layouts import Box, Sizes
from apriel_mcore.bridge.tensorfile import Dtype

TORCH_DTYPES: dict[Dtype, torch.dtype] = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float32": torch.float32,
}
DTYPES: dict[torch.dtype, Dtype] = {dtype: name for name, dtype in TORCH_DTYPES.items()}

_INFINITY: dict[Dtype, tuple[type[np.signedinteger], type[np.unsignedinteger], int]] = {
    "bfloat16": (np.int16, np.uint16, 0x7F80),
    "float16": (np.int16, np.uint16, 0x7C00),
    "float32": (np.int32, np.uint32, 0x7F800000),
}
"""The bits of +infinity, and words to read them as."""
_KEPT = 1 << 28
"""Bytes: many tensors of layers have this size. The few that are larger, tables of the vocabulary above all,
get memory of their own, which goes with them."""
_BLOCK = 1 << 19
"""Elements looked at twice while they are in the cache."""


class Scratch:
    """One stretch of memory that grows to the largest tensor asked for, up to a size worth keeping."""

    def __init__(self) -> None:
        self._memory: NDArray[np.uint8] = np.empty(0, np.uint8)

    def tensor(self, sizes: Sizes, dtype: Dtype) -> Tensor:
        """A tensor with undefined contents; what was handed out before is overwritten through it."""
        return self.tensors({"": sizes}, dtype)[""]

    def tensors(self, sizes: dict[str, Sizes], dtype: Dtype) -> dict[str, Tensor]:
        """Several at once, each with a storage of exactly its size."""
        kind = TORCH_DTYPES[dtype]
        needed = sum(prod(each) for each in sizes.values()) * kind.itemsize
        memory = self._memory
        if needed > memory.size:
            memory = self._memory = np.empty(0, np.uint8)  # gone before the larger one comes
            memory = np.empty(needed, np.uint8)
            if needed <= _KEPT:
                self._memory = memory
        views: dict[str, Tensor] = {}
        offset = 0
        for name, each in sizes.items():
            count = prod(each)
            views[name] = torch.frombuffer(memory, dtype=kind, count=count, offset=offset).view(each)
            offset += count * kind.itemsize
        return views


def bytes_of(tensor: Tensor) -> Buffer:
    """The memory of a contiguous CPU tensor."""
    assert tensor.is_contiguous(), "its elements are not one stretch of memory"
    return memoryview(tensor.view(-1).view(torch.uint8).numpy())


def on_its_own(tensor: Tensor) -> Tensor:
    """A contiguous tensor in the same memory, with a storage of exactly its size: torch.save writes whole
    storages."""
    return torch.frombuffer(bytes_of(tensor), dtype=tensor.dtype).view(tensor.shape)


def slices(box: Box) -> tuple[slice, ...]:
    """The index of a box."""
    return tuple(slice(start, stop) for start, stop in box)


def is_finite(tensor: Tensor) -> bool:
    """Whether no element of a contiguous tensor is NaN or infinite.

    Of floats read as integers, the positive ones grow with their value, up to +infinity and then NaN; read
    as unsigned, the negative ones lie above them and do the same. So two maxima tell, without a temporary.
    """
    signed, unsigned, infinity = _INFINITY[DTYPES[tensor.dtype]]
    negative = infinity + (1 << (8 * signed().itemsize - 1))
    words = np.frombuffer(bytes_of(tensor), dtype=signed)
    blocks = (words[start : start + _BLOCK] for start in range(0, words.size, _BLOCK))
    return all(int(block.max()) < infinity and int(block.view(unsigned).max()) < negative for block in blocks)
