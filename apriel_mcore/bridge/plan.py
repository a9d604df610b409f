"""Who copies what where? The whole of a publish as data, the same on every rank, without torch.

    (shape, ranks, spec)  ->  Plan: one ordered list of (parameter, box) -> (HF tensor, box)

Every rank builds the whole plan, takes its own part, and compares the digest with the others before a
byte moves. Together the exporting ranks cover every element of every HF tensor exactly once: replicated
parameters are exported by tensor rank 0 alone, the tied copy of the embedding not at all, and of the
data- and context-parallel twins only the first writes.
"""

import hashlib
from collections.abc import Iterator, Sequence

import msgspec

from apriel_mcore.bridge.layouts import Box, Sizes
from apriel_mcore.bridge.names import Chunk, Spec, hf_tensors, parameters_of
from apriel_mcore.bridge.shape import ModelShape
from apriel_mcore.bridge.tensorfile import Dtype
from apriel_mcore.config.schema import Parallel
from apriel_mcore.errors import BridgeError


class Coordinates(msgspec.Struct, frozen=True, kw_only=True):
    """Where a trainer rank stands in the grid, and the model chunks it really holds."""

    tensor_rank: int
    pipeline_rank: int
    data_rank: int
    context_rank: int
    chunks: tuple[Chunk, ...]
    """In order of the virtual pipeline; read off the model, so that a plan can contradict it."""

    @property
    def exports(self) -> bool:
        """Its data- and context-parallel twins hold the same weights; the first of them writes."""
        return self.data_rank == 0 and self.context_rank == 0


class Copy(msgspec.Struct, frozen=True, kw_only=True):
    """One box of one parameter of one rank, and the equal box of an HF tensor."""

    pipeline_rank: int
    chunk: int
    tensor_rank: int
    parameter: str
    shard: Box
    hf: str
    hf_box: Box
    exported: bool
    """Whether this rank is the one that writes the box; every rank that holds it loads it."""


class Shard(msgspec.Struct, frozen=True, kw_only=True):
    """A parameter that a rank must hold."""

    pipeline_rank: int
    chunk: int
    tensor_rank: int
    parameter: str
    sizes: Sizes


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """All ranks' shards and copies, in one global order."""

    tensors: dict[str, Sizes]
    """The HF tensors in order of their place in the arena."""
    own_dtypes: dict[str, Dtype] = {}
    """Of those HF tensors that have a dtype of their own, whatever is chosen for the others."""
    chunks: tuple[tuple[Chunk, ...], ...]
    """By pipeline rank."""
    shards: tuple[Shard, ...]
    copies: tuple[Copy, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of everything in the plan: equal on ranks that will do matching things."""
        return hashlib.sha256(msgspec.msgpack.encode(self)).hexdigest()

    def dtypes(self, others: Dtype) -> dict[str, Dtype]:
        """Each HF tensor's."""
        return {name: self.own_dtypes.get(name, others) for name in self.tensors}

    def shards_of(self, rank: Coordinates) -> list[Shard]:
        """The parameters of one rank; BridgeError if it holds other layers than the plan expects."""
        self._check_chunks(rank)
        return [shard for shard in self.shards if _is_at(shard, rank)]

    def copies_of(self, rank: Coordinates) -> list[Copy]:
        """All that one rank holds, exported or not, in plan order."""
        self._check_chunks(rank)
        return [copy for copy in self.copies if _is_at(copy, rank)]

    def exports_of(self, rank: Coordinates) -> list[Copy]:
        """What one rank writes, in plan order."""
        return [copy for copy in self.copies_of(rank) if copy.exported and rank.exports]

    def _check_chunks(self, rank: Coordinates) -> None:
        planned = self.chunks[rank.pipeline_rank]
        if rank.chunks != planned:
            raise BridgeError(
                f"pipeline rank {rank.pipeline_rank} holds {_describe(rank.chunks)}, "
                f"the plan expects {_describe(planned)}"
            )


def make_plan(shape: ModelShape, parallel: Parallel, spec: Spec) -> Plan:
    """The plan of a model split over tensor, pipeline and virtual-pipeline ranks.

    ConfigError when the ranks cannot hold the model.
    """
    shape.check_layout(parallel)
    chunks = tuple(split_layers(shape, parallel, stage) for stage in range(parallel.pipeline))
    shards: list[Shard] = []
    copies: list[Copy] = []
    for stage, chunk_index in _in_layer_order(parallel):
        for parameter in parameters_of(shape, chunks[stage][chunk_index], spec):
            sizes = parameter.layout.shard_sizes(parallel.tensor)
            for tensor_rank in range(parallel.tensor):
                at = {"pipeline_rank": stage, "chunk": chunk_index, "tensor_rank": tensor_rank}
                shards.append(Shard(**at, parameter=parameter.name, sizes=sizes))
                writes = parameter.exported and (tensor_rank == 0 or not parameter.layout.replicated)
                copies += [
                    Copy(
                        **at,
                        parameter=parameter.name,
                        shard=piece.shard,
                        hf=parameter.hf[piece.part],
                        hf_box=piece.hf,
                        exported=writes,
                    )
                    for piece in parameter.layout.pieces(tensor_rank, parallel.tensor)
                ]
    return Plan(tensors=hf_tensors(shape), chunks=chunks, shards=tuple(shards), copies=tuple(copies))


def split_layers(shape: ModelShape, parallel: Parallel, stage: int) -> tuple[Chunk, ...]:
    """Megatron's even split: chunk v of stage p starts at layer (v * stages + p) * layers per chunk."""
    num_layers = shape.num_layers // (parallel.pipeline * parallel.virtual_pipeline)
    turns = range(parallel.virtual_pipeline)
    return tuple(
        Chunk(
            layer_offset=(turn * parallel.pipeline + stage) * num_layers,
            num_layers=num_layers,
            first=(turn, stage) == (0, 0),
            last=(turn, stage) == (turns[-1], parallel.pipeline - 1),
        )
        for turn in turns
    )


def _in_layer_order(parallel: Parallel) -> Iterator[tuple[int, int]]:
    """(stage, chunk) in the order of their layers."""
    for turn in range(parallel.virtual_pipeline):
        for stage in range(parallel.pipeline):
            yield stage, turn


def _is_at(part: Copy | Shard, rank: Coordinates) -> bool:
    return (part.tensor_rank, part.pipeline_rank) == (rank.tensor_rank, rank.pipeline_rank)


def _describe(chunks: Sequence[Chunk]) -> str:
    words = [
        f"layers {chunk.layer_offset}..{chunk.layer_offset + chunk.num_layers - 1}"
        f"{' with embedding' if chunk.first else ''}{' with head' if chunk.last else ''}"
        for chunk in chunks
    ]
    return "; ".join(words) or "no layers"
