"""Which slices travel from which trainer rank to which tensor rank of a server, packed how, in what order?

    Plan (shard boxes -> HF boxes)  x  a server's tensor ranks  --cut, split, batch-->  messages

A trainer rank sends only what a server's rank will keep, straight out of its own shard, in messages of a
bounded size. Pure data: trainer ranks and servers make the plan by themselves and compare its digest, so
no names or sizes travel.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from math import prod

import msgspec

from apriel_mcore.bridge.layouts import Box, Columns, GateUp, GroupedQKV, GroupedQKVBias, Layout, Rows, Sizes
from apriel_mcore.bridge.names import Chunk, Spec, parameters_of
from apriel_mcore.bridge.plan import Coordinates, Copy, make_plan
from apriel_mcore.bridge.scales import Scale, by_layers, scales_for, with_scales
from apriel_mcore.bridge.shape import ModelShape
from apriel_mcore.bridge.tensorfile import ITEMSIZE, Dtype
from apriel_mcore.config.schema import Parallel
from apriel_mcore.config.schema.fields import Positive
from apriel_mcore.config.schema.publish import Weights

VOCAB_MULTIPLE = 64
"""vLLM pads the vocabulary to a multiple of this before its ranks share it out."""

type Rank = tuple[int, int]
"""Pipeline rank and tensor rank of an exporting trainer rank."""


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """All that a plan depends on, the model's shape apart; small enough to be sent to every server."""

    parallel: Parallel
    """The trainer's layout."""
    spec: Spec
    num_targets: Positive
    """Tensor ranks of a server."""
    dtype: Dtype
    """Of the tensors that are not quantised."""
    weights: Weights
    message_elements: Positive
    """No message is larger, unless a single row of a tensor is."""


class Slice(msgspec.Struct, frozen=True, kw_only=True):
    """A box of one parameter, and the equal box of an HF tensor."""

    chunk: int
    parameter: str
    shard: Box
    hf: str
    hf_box: Box

    @property
    def num_elements(self) -> int:
        """Elements in the box."""
        return prod(stop - start for start, stop in self.shard)


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """Slices that one trainer rank packs, in this order, for one tensor rank of every server."""

    source: Rank
    target: int
    dtype: Dtype
    """Of all its slices."""
    slices: tuple[Slice, ...]

    @property
    def num_elements(self) -> int:
        """Elements of all slices."""
        return sum(piece.num_elements for piece in self.slices)

    @property
    def num_bytes(self) -> int:
        """Of all slices."""
        return self.num_elements * ITEMSIZE[self.dtype]


class StreamPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A whole version on its way."""

    num_targets: int
    whole_sizes: dict[str, Sizes]
    """The HF tensors, in the plan's order."""
    dtypes: dict[str, Dtype]
    """Each HF tensor's."""
    boxes_R: tuple[dict[str, Box], ...]
    """By tensor rank of a server: what it keeps of each HF tensor."""
    messages: tuple[Message, ...]
    """In the order in which every rank sends, or expects, its own."""

    @property
    def digest(self) -> str:
        """SHA-256 of everything in the plan: equal where matching things will be sent and expected."""
        return hashlib.sha256(msgspec.msgpack.encode(self)).hexdigest()

    def sizes_of(self, target: int) -> dict[str, Sizes]:
        """Sizes of what a server rank keeps of each tensor."""
        return {
            name: tuple(stop - start for start, stop in box) for name, box in self.boxes_R[target].items()
        }

    @property
    def quantised(self) -> tuple[str, ...]:
        """Weights in FP8, in short."""
        return by_layers(name for name, dtype in self.dtypes.items() if dtype == "float8_e4m3")

    def num_bytes_to(self, target: int) -> int:
        """Bytes that a server rank receives."""
        return sum(message.num_bytes for message in self.messages if message.target == target)


def make_stream_plan(shape: ModelShape, route: Route) -> StreamPlan:
    """The plan of a model on a route.

    ConfigError when the trainer's ranks cannot hold the model.
    """
    scales = scales_for(shape, route.weights)
    plan = with_scales(make_plan(shape, route.parallel, route.spec), scales)
    dtypes = plan.dtypes(route.dtype)
    boxes_R = tuple(
        _with_scales(_server_boxes(shape, target, route.num_targets), scales)
        for target in range(route.num_targets)
    )
    copies = [copy for copy in plan.copies if copy.exported]
    numbered: list[tuple[int, Message]] = []
    for source in sorted({_source(copy) for copy in copies}):
        mine = [copy for copy in copies if _source(copy) == source]
        for target, boxes in enumerate(boxes_R):
            batches = _batches(_cuts(mine, boxes), dtypes, route.message_elements)
            numbered += [
                (number, Message(source=source, target=target, dtype=dtype, slices=tuple(batch)))
                for number, (dtype, batch) in enumerate(batches)
            ]
    messages = tuple(message for _, message in sorted(numbered, key=lambda entry: entry[0]))
    return StreamPlan(
        num_targets=route.num_targets,
        whole_sizes=plan.tensors,
        dtypes=dtypes,
        boxes_R=boxes_R,
        messages=messages,
    )


def source_of(rank: Coordinates) -> Rank:
    """The name under which a trainer rank sends."""
    return rank.pipeline_rank, rank.tensor_rank


def _source(copy: Copy) -> Rank:
    return copy.pipeline_rank, copy.tensor_rank


def _server_boxes(shape: ModelShape, target: int, num_targets: int) -> dict[str, Box]:
    """The box of each HF tensor that one tensor rank of a vLLM server keeps."""
    whole = Chunk(layer_offset=0, num_layers=shape.num_layers, first=True, last=True)
    return {
        name: _server_box(parameter.layout, part, target, num_targets)
        for parameter in parameters_of(shape, whole, "local")
        for part, name in enumerate(parameter.hf)
    }


def _with_scales(boxes: Mapping[str, Box], scales: Mapping[str, Scale]) -> dict[str, Box]:
    """And the scales that belong to each box."""
    return {**boxes, **{scale.name: scale.box_of(boxes[scale.weight]) for scale in scales.values()}}


def _server_box(layout: Layout, part: int, target: int, num_targets: int) -> Box:
    """As vLLM's layers split the tensor; whole for what they keep whole."""
    rows, *columns = layout.hf_sizes[part]
    rest = tuple((0, size) for size in columns)
    match layout:
        case Rows():
            share = -(-rows // VOCAB_MULTIPLE) * VOCAB_MULTIPLE // num_targets
            return ((min(target * share, rows), min((target + 1) * share, rows)), *rest)
        case GroupedQKV() | GroupedQKVBias() if part > 0 and layout.groups < num_targets:
            # Ranks share a key and value head.
            return (_share(rows, target * layout.groups // num_targets, layout.groups), *rest)
        case GroupedQKV() | GroupedQKVBias() | GateUp():
            return (_share(rows, target, num_targets), *rest)
        case Columns():
            return ((0, rows), _share(columns[0], target, num_targets))
        case _:
            return ((0, rows), *rest)


def _share(size: int, part: int, num_parts: int) -> tuple[int, int]:
    return size // num_parts * part, size // num_parts * (part + 1)


def _cuts(copies: Iterable[Copy], boxes: Mapping[str, Box]) -> Iterator[Slice]:
    """The parts of the copies that lie in the boxes."""
    for copy in copies:
        hf_box: Box = ()
        shard: Box = ()
        for (start, stop), (first, last), (offset, _) in zip(
            copy.hf_box, boxes[copy.hf], copy.shard, strict=True
        ):
            low, high = max(start, first), min(stop, last)
            hf_box += ((low, high),)
            shard += ((offset + low - start, offset + high - start),)
        if all(low < high for low, high in hf_box):
            yield Slice(chunk=copy.chunk, parameter=copy.parameter, shard=shard, hf=copy.hf, hf_box=hf_box)


def _batches(
    slices: Iterable[Slice], dtypes: Mapping[str, Dtype], limit: int
) -> Iterator[tuple[Dtype, list[Slice]]]:
    """Slices of one dtype and of at most `limit` elements together; a larger slice is split by its rows."""
    parts = [part for whole in slices for part in _split(whole, limit)]
    found: dict[Dtype, None] = {dtypes[part.hf]: None for part in parts}
    for dtype in found:
        batch: list[Slice] = []
        count = 0
        for piece in (part for part in parts if dtypes[part.hf] == dtype):
            if batch and count + piece.num_elements > limit:
                yield dtype, batch
                batch, count = [], 0
            batch.append(piece)
            count += piece.num_elements
        yield dtype, batch


def _split(piece: Slice, limit: int) -> Iterator[Slice]:
    (first, last), *rest = piece.shard
    (hf_first, _), *hf_rest = piece.hf_box
    step = max(1, limit * (last - first) // max(1, piece.num_elements))
    for start in range(first, last, step):
        stop = min(start + step, last)
        moved = hf_first - first
        yield msgspec.structs.replace(
            piece,
            shard=((start, stop), *rest),
            hf_box=((start + moved, stop + moved), *hf_rest),
        )
