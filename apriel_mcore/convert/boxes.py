"""How do the HF tensors of one parameter become its stored cuts, and come back out of it?

    HF tensors --cut_out--> one box, as the checkpoint keeps it
    stored parameter --take_apart--> HF tensors

Plain strided copies; a box that is one stretch of memory already is handed on as it is.
"""

from collections.abc import Mapping

from torch import Tensor

from apriel_mcore.convert.parameters import Cut, Parameter
from apriel_mcore.convert.scratch import DTYPES, Scratch, on_its_own, slices


def cut_out(cut: Cut, hf: Mapping[str, Tensor], scratch: Scratch) -> Tensor:
    """One box of a parameter, contiguous; valid until the scratch is used again."""
    if len(cut.fills) == 1 and not cut.padded:
        part = hf[cut.fills[0].hf][slices(cut.fills[0].hf_box)]
        if part.is_contiguous():
            return on_its_own(part)
    some = next(iter(hf.values()))
    target = scratch.tensor(cut.sizes, DTYPES[some.dtype])
    if cut.padded:
        target.zero_()
    for fill in cut.fills:
        target[slices(fill.inside)].copy_(hf[fill.hf][slices(fill.hf_box)])
    return target


def take_apart(parameter: Parameter, stored: Tensor, scratch: Scratch) -> dict[str, Tensor]:
    """The HF tensors in a whole stored parameter, contiguous; valid until the scratch is used again."""
    fills = parameter.whole.fills
    parts = {fill.hf: stored[slices(fill.inside)] for fill in fills}
    if len(parts) == len(fills) and all(part.is_contiguous() for part in parts.values()):
        return parts
    tensors = scratch.tensors(parameter.hf_sizes, DTYPES[stored.dtype])
    for fill in fills:
        tensors[fill.hf][slices(fill.hf_box)].copy_(stored[slices(fill.inside)])
    return tensors
