"""How do the HF tensors of one parameter become its stored cuts, and come back out of it?

    HF tensors --cut_out--> one box, as the checkpoint keeps it
    stored parameter --take_apart--> HF tensors

Plain strided copies. What would be copied whole is handed on as it is.
"""

from collections.abc import Mapping

from torch import Tensor

from apriel_mcore.convert.parameters import Cut, Parameter
from apriel_mcore.convert.scratch import DTYPES, Scratch, slices


def cut_out(cut: Cut, hf: Mapping[str, Tensor], scratch: Scratch) -> Tensor:
    """One box of a parameter, contiguous; valid until the scratch is used again."""
    if len(cut.fills) == 1 and cut.sizes == tuple(hf[cut.fills[0].hf].shape):
        return hf[cut.fills[0].hf]
    dtype = next(DTYPES[tensor.dtype] for tensor in hf.values())
    target = scratch.tensor(cut.sizes, dtype)
    if cut.padded:
        target.zero_()
    for fill in cut.fills:
        target[slices(fill.inside)].copy_(hf[fill.hf][slices(fill.hf_box)])
    return target


def take_apart(parameter: Parameter, stored: Tensor, scratch: Scratch) -> dict[str, Tensor]:
    """The HF tensors in a whole stored parameter, contiguous; valid until the scratch is used again."""
    fills = parameter.whole.fills
    if len(fills) == 1 and parameter.hf_sizes[fills[0].hf] == tuple(stored.shape):
        return {fills[0].hf: stored}
    tensors = scratch.tensors(parameter.hf_sizes, DTYPES[stored.dtype])
    for fill in fills:
        tensors[fill.hf][slices(fill.hf_box)].copy_(stored[slices(fill.inside)])
    return tensors
