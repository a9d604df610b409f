"""Where does a Megatron checkpoint keep each parameter, and which boxes of which HF tensors is it?

    decoder.layers.3.mlp.linear_fc1.weight   in a chunk of the model, one of T tensor ranks
    decoder.layers.mlp.linear_fc1.weight[3]  in the checkpoint: layers stacked, tensor ranks joined

What is stored is the parameter as a single tensor rank would hold it; T only says along which lines it
is cut. So a cut needs no rule of its own for each kind of layout: the box that a rank holds, through the
HF tensors, to the box that a single rank holds. Names are those of the Transformer Engine spec, which
Megatron's local layers also save under.
"""

from collections.abc import Sequence
from functools import cached_property
from math import prod

import msgspec

from apriel_mcore.bridge.layouts import Box, Layout, Piece, Sizes
from apriel_mcore.bridge.names import Chunk, parameters_of
from apriel_mcore.bridge.shape import ModelShape
from apriel_mcore.errors import InputError

_LAYERS = "decoder.layers."


class Fill(msgspec.Struct, frozen=True, kw_only=True):
    """Box `inside` of a cut holds what box `hf_box` of HF tensor `hf` holds."""

    hf: str
    hf_box: Box
    inside: Box


class Cut(msgspec.Struct, frozen=True, kw_only=True):
    """A box of a stored parameter that one tensor rank holds; what no fill covers is zero."""

    offsets: Sizes
    sizes: Sizes
    fills: tuple[Fill, ...]

    @property
    def padded(self) -> bool:
        """Whether it has rows that no HF tensor has."""
        return sum(_volume(fill.inside) for fill in self.fills) < prod(self.sizes)


class Parameter(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """One parameter of the model."""

    key: str
    """Its name in the checkpoint, shared by all layers."""
    layer: int | None
    """Its place along the checkpoint's leading dim; None: the key has no such dim."""
    num_layers: int
    hf: tuple[str, ...]
    layout: Layout

    @property
    def name(self) -> str:
        """For people: the key and the layer."""
        return self.key if self.layer is None else f"{self.key}[{self.layer}]"

    @cached_property
    def hf_sizes(self) -> dict[str, Sizes]:
        """The HF tensors it is made of."""
        return dict(zip(self.hf, self.layout.hf_sizes, strict=True))

    @property
    def num_elements(self) -> int:
        """Of the HF tensors."""
        return sum(prod(sizes) for sizes in self.hf_sizes.values())

    @cached_property
    def whole(self) -> Cut:
        """All of it, as a single tensor rank holds it."""
        sizes = self.layout.shard_sizes(1)
        return Cut(
            offsets=(0,) * len(sizes),
            sizes=sizes,
            fills=tuple(
                Fill(hf=self.hf[piece.part], hf_box=piece.hf, inside=piece.shard)
                for piece in self.layout.pieces(0, 1)
            ),
        )

    @property
    def may_be_padded(self) -> bool:
        """Whether rows may follow that no HF tensor has: tensor ranks need not divide the vocabulary."""
        return self.layer is None and not self.layout.replicated

    def stored_sizes(self, num_ranks: int) -> Sizes:
        """Sizes under its key, layers and the padding of `num_ranks` tensor ranks included."""
        sizes = self.layout.shard_sizes(1)
        if self._pads(num_ranks):
            sizes = (num_ranks * self.layout.shard_sizes(num_ranks)[0], *sizes[1:])
        return sizes if self.layer is None else (self.num_layers, *sizes)

    def in_checkpoint(self, offsets: Sizes) -> Sizes:
        """Offsets of a box under its key: the layer goes in front."""
        return offsets if self.layer is None else (self.layer, *offsets)

    def layer_in_front(self, sizes: Sizes) -> Sizes:
        """Sizes of a box under its key: one layer."""
        return sizes if self.layer is None else (1, *sizes)

    def cuts(self, num_ranks: int) -> list[Cut]:
        """What each of `num_ranks` tensor ranks holds, in their order; a replicated parameter once."""
        if self.layout.replicated:
            return [self.whole]
        if self._pads(num_ranks):
            return [self._padded_cut(rank, num_ranks) for rank in range(num_ranks)]
        return [cut for rank in range(num_ranks) for cut in self._cuts_of(rank, num_ranks)]

    def _pads(self, num_ranks: int) -> bool:
        held = num_ranks * prod(self.layout.shard_sizes(num_ranks))
        return not self.layout.replicated and held > prod(self.layout.shard_sizes(1))

    def _padded_cut(self, rank: int, num_ranks: int) -> Cut:
        """Rows of a shard whose last rows may not exist."""
        sizes = self.layout.shard_sizes(num_ranks)
        return Cut(
            offsets=(rank * sizes[0], *(0 for _ in sizes[1:])),
            sizes=sizes,
            fills=tuple(
                Fill(hf=self.hf[piece.part], hf_box=piece.hf, inside=piece.shard)
                for piece in self.layout.pieces(rank, num_ranks)
            ),
        )

    def _cuts_of(self, rank: int, num_ranks: int) -> list[Cut]:
        """Boxes of the rank's pieces; parts that alternate (query, key, value by group) stay together,
        parts that follow each other (gate, up) do not: there the next rank's share lies in between."""
        whole_pieces = self.layout.pieces(0, 1)
        pieces = self.layout.pieces(rank, num_ranks)
        boxes = [(piece, _translate(piece, whole_pieces)) for piece in pieces]
        if len({piece.part for piece in pieces}) == len(pieces):
            runs = [[pair] for pair in boxes]
        else:
            runs = _adjacent(boxes)
        return [self._join(run) for run in runs]

    def _join(self, run: Sequence[tuple[Piece, Box]]) -> Cut:
        """One cut of pieces that lie one below the other."""
        first, last = run[0][1], run[-1][1]
        offsets = tuple(start for start, _ in first)
        ends = (last[0][1], *(stop for _, stop in first[1:]))
        return Cut(
            offsets=offsets,
            sizes=tuple(stop - start for start, stop in zip(offsets, ends, strict=True)),
            fills=tuple(
                Fill(hf=self.hf[piece.part], hf_box=piece.hf, inside=_relative(box, offsets))
                for piece, box in run
            ),
        )


def model_parameters(shape: ModelShape) -> list[Parameter]:
    """Every parameter in the table's order; InputError for one whose key this file cannot tell."""
    whole = Chunk(layer_offset=0, num_layers=shape.num_layers, first=True, last=True)
    return [
        _parameter(parameter.name, parameter.hf, parameter.layout, shape)
        for parameter in parameters_of(shape, whole, "te")
    ]


def _parameter(name: str, hf: tuple[str, ...], layout: Layout, shape: ModelShape) -> Parameter:
    layer, rest = None, name
    if name.startswith(_LAYERS):
        number, _, rest = name.removeprefix(_LAYERS).partition(".")
        layer, rest = int(number), _LAYERS + rest
    if any(part.isdigit() for part in rest.split(".")):
        raise InputError(f"{name}: convert cannot store parameters numbered within a layer; leave them in HF")
    return Parameter(key=rest, layer=layer, num_layers=shape.num_layers, hf=hf, layout=layout)


def _translate(piece: Piece, whole_pieces: Sequence[Piece]) -> Box:
    """The box of the stored parameter that holds what `piece` of some rank's shard holds."""
    for whole in whole_pieces:
        spans = zip(whole.hf, piece.hf, strict=True)
        if whole.part == piece.part and all(o[0] <= i[0] and i[1] <= o[1] for o, i in spans):
            moves = [s[0] - h[0] for s, h in zip(whole.shard, whole.hf, strict=True)]
            return tuple((start + m, stop + m) for (start, stop), m in zip(piece.hf, moves, strict=True))
    raise AssertionError(f"{piece} crosses the pieces of a single rank")


def _adjacent(boxes: Sequence[tuple[Piece, Box]]) -> list[list[tuple[Piece, Box]]]:
    """Runs of pieces that continue each other along dim 0."""
    runs: list[list[tuple[Piece, Box]]] = []
    for piece, box in boxes:
        before = runs[-1][-1][1] if runs else None
        if before and before[0][1] == box[0][0] and before[1:] == box[1:]:
            runs[-1].append((piece, box))
        else:
            runs.append([(piece, box)])
    return runs


def _relative(box: Box, offsets: Sizes) -> Box:
    return tuple((start - zero, stop - zero) for (start, stop), zero in zip(box, offsets, strict=True))


def _volume(box: Box) -> int:
    return prod(stop - start for start, stop in box)
