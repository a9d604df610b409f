"""How does a rank turn its own shards into FP8 that fits those of the other ranks?

    own boxes --largest magnitude of each cell--> table --maximum over all ranks--> scales
    own boxes / scales --round to nearest--> FP8 copy of the shard, which travels instead of it

A cell's scale is its largest magnitude / 448 in float32, or 1 where the cell is zero; the FP8 value is the
e4m3 number nearest to weight / scale, ties to even. This does not depend on how ranks share out the weights:
every layout publishes the same bytes. As suffixes, r and c are rows and columns of a box, R and C its cells.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

from apriel_mcore.bridge.layouts import Box
from apriel_mcore.bridge.plan import Coordinates, Copy, Plan
from apriel_mcore.bridge.publish import Trainer
from apriel_mcore.bridge.reshard import Chunks
from apriel_mcore.bridge.scales import Scale
from apriel_mcore.errors import BridgeError

FP8 = torch.float8_e4m3fn
FP8_MAX = torch.finfo(FP8).max


class Reduce(Protocol):
    """Collectives over all trainer ranks (mcore/parallel.py)."""

    def maximum(self, values: Tensor) -> None:
        """Replace each value by the largest of all ranks'."""
        ...


class QuantisedTrainer:
    """publish.Trainer of the same rank, with FP8 weights and their scales in place of the weights."""

    def __init__(self, trainer: Trainer, plan: Plan, scales: Mapping[str, Scale], ranks: Reduce) -> None:
        """`plan` is the one with scales."""
        self._trainer = trainer
        self._scales = scales
        self._ranks = ranks
        self._copies = [copy for copy in plan.copies_of(trainer.coordinates) if copy.hf in scales]
        num_slots = max(scale.stop for scale in scales.values())
        device = _device(trainer.chunks())
        self._table = torch.zeros(num_slots, dtype=torch.float32, device=device)
        self._own: list[dict[str, Tensor]] = [{} for _ in trainer.coordinates.chunks]
        projections = {(copy.chunk, copy.parameter) for copy in self._copies}
        scale_named = {scale.name: scale for scale in scales.values()}
        for shard in plan.shards_of(trainer.coordinates):
            own = self._own[shard.chunk]
            if (shard.chunk, shard.parameter) in projections:
                own[shard.parameter] = torch.empty(shard.sizes, dtype=FP8, device=device)
            elif scale := scale_named.get(shard.parameter):
                own[shard.parameter] = self._table[scale.start : scale.stop].view(scale.sizes)

    @property
    def coordinates(self) -> Coordinates:
        """See Trainer."""
        return self._trainer.coordinates

    def logprobs(self, tokens_T: Sequence[int]) -> list[float]:
        """Of the weights that train; see Trainer."""
        return self._trainer.logprobs(tokens_T)

    @torch.no_grad()
    def chunks(self) -> Chunks:
        """See Trainer; quantised anew at every call, in memory that stays the same.

        BridgeError, on every rank, when a weight is not finite.
        """
        chunks = self._trainer.chunks()
        self._table.zero_()
        for copy in self._copies:
            cells = self._cells(copy)
            torch.maximum(cells, largest(*self._box(chunks, copy)), out=cells)
        self._ranks.maximum(self._table.nan_to_num_(nan=torch.inf, posinf=torch.inf))
        self._check_finite()
        self._table.div_(FP8_MAX).masked_fill_(self._table == 0, 1.0)
        for copy in self._copies:
            box, hf_box, cell = self._box(chunks, copy)
            self._own[copy.chunk][copy.parameter][_index(copy.shard)] = quantise(
                box, hf_box, cell, self._cells(copy)
            )
        return [{**chunk, **own} for chunk, own in zip(chunks, self._own, strict=True)]

    def _box(self, chunks: Chunks, copy: Copy) -> tuple[Tensor, Box, tuple[int, int]]:
        box_rc = chunks[copy.chunk][copy.parameter].detach()[_index(copy.shard)]
        return box_rc, copy.hf_box, self._scales[copy.hf].cell

    def _cells(self, copy: Copy) -> Tensor:
        """The slots of the cells that a box touches, [R, C]."""
        scale = self._scales[copy.hf]
        grid = self._table[scale.start : scale.stop].view(scale.grid)
        return grid[_index(scale.cells_of(copy.hf_box))]

    def _check_finite(self) -> None:
        if self._table.isfinite().all():
            return
        for scale in self._scales.values():
            if not self._table[scale.start : scale.stop].isfinite().all():
                raise BridgeError(
                    f"{scale.weight} is not finite and cannot be quantised: the step before broke the weights"
                )


def largest(box_rc: Tensor, hf_box: Box, cell: tuple[int, int]) -> Tensor:
    """Largest magnitude in each cell that a box touches, float32 [R, C]; `hf_box` says where the box lies."""
    rows, columns = hf_box
    tall_rc = pad(box_rc, (0, 0, *_margin(rows, cell[0]))) if any(_margin(rows, cell[0])) else box_rc
    largest_Rc = tall_rc.unflatten(0, (_num_cells(rows, cell[0]), -1)).abs().amax(dim=1)
    wide_Rc = pad(largest_Rc, _margin(columns, cell[1]))
    return wide_Rc.unflatten(1, (_num_cells(columns, cell[1]), -1)).amax(dim=2).float()


def quantise(box_rc: Tensor, hf_box: Box, cell: tuple[int, int], scale_RC: Tensor) -> Tensor:
    """A box in FP8 [r, c], each element divided by the scale of its cell."""
    scale_rc = scale_RC
    for dim, (start, stop) in enumerate(hf_box):
        if scale_RC.shape[dim] > 1:
            scale_rc = scale_rc.repeat_interleave(cell[dim], dim=dim)
            scale_rc = scale_rc.narrow(dim, start % cell[dim], stop - start)
    # Division may lift the largest above FP8_MAX by a rounding, and whether a cast saturates is its device's.
    return (box_rc.float() / scale_rc).clamp_(-FP8_MAX, FP8_MAX).to(FP8)


def _margin(span: tuple[int, int], size: int) -> tuple[int, int]:
    """What is missing before and after a span to whole cells; nothing where it lies within a single one."""
    start, stop = span
    return (0, 0) if _num_cells(span, size) == 1 else (start % size, -stop % size)


def _num_cells(span: tuple[int, int], size: int) -> int:
    start, stop = span
    return -(-stop // size) - start // size


def _index(box: Box) -> tuple[slice, ...]:
    return tuple(slice(start, stop) for start, stop in box)


def _device(chunks: Chunks) -> torch.device:
    return next(parameter.device for chunk in chunks for parameter in chunk.values())
