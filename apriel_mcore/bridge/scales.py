"""Which weights travel in FP8, and where do their scales go? The part of FP8 that is a plan, without torch.

    weight [rows, columns] --cells of rows x columns that share a scale--> scale tensor, and slots of a table

Quantised are the weights of attention and MLP projections, told by their layout: embedding, head, norms and
biases are not. Cells are counted on the Hugging Face tensors, after query, key and value and gate and up have
been told apart, so a shard of a trainer rank may end anywhere within a cell: the table collects each cell's
largest magnitude over all ranks before anyone quantises (bridge/quantise.py).

Scale tensors are named as in published FP8 checkpoints: `X.weight_scale_inv` for cells of 128 x 128
(DeepSeek-V3, arXiv 2412.19437, section 3.3), `X.weight_scale` for one scale a tensor; both are factors: the
weight is FP8 value x scale.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import groupby
from math import prod
from typing import Literal

import msgspec

from apriel_mcore.bridge.layouts import Box, Columns, GateUp, GroupedQKV, Sizes
from apriel_mcore.bridge.names import Chunk, parameters_of
from apriel_mcore.bridge.plan import Copy, Plan, Shard
from apriel_mcore.bridge.shape import ModelShape
from apriel_mcore.bridge.tensorfile import Dtype
from apriel_mcore.config.schema.publish import Weights
from apriel_mcore.errors import ConfigError

BLOCK = 128
"""Rows and columns of a cell, block-wise."""

Scheme = Literal["fp8_block", "fp8_tensor"]

SCALE_SUFFIX: dict[Scheme, str] = {"fp8_block": "_scale_inv", "fp8_tensor": "_scale"}
"""Behind the weight's name."""

_LINEAR = (GroupedQKV, GateUp, Columns)
"""Layouts of the weights that are quantised."""


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """The scales of one weight."""

    weight: str
    """HF name of the weight."""
    name: str
    """HF name of the scale tensor."""
    cell: tuple[int, int]
    """Rows and columns that share a scale."""
    grid: tuple[int, int]
    """Cells down and across."""
    start: int
    """First slot in the table, cells in row-major order."""
    scheme: Scheme

    @property
    def sizes(self) -> Sizes:
        """Of the scale tensor."""
        return self.grid if self.scheme == "fp8_block" else (1,)

    @property
    def stop(self) -> int:
        """One past its last slot."""
        return self.start + prod(self.grid)

    def cells_of(self, box: Box) -> Box:
        """The cells that a box of the weight touches."""
        return tuple(
            (start // size, -(-stop // size)) for (start, stop), size in zip(box, self.cell, strict=True)
        )

    def box_of(self, box: Box) -> Box:
        """What a server that keeps `box` of the weight keeps of the scale tensor."""
        return self.cells_of(box) if self.scheme == "fp8_block" else ((0, 1),)


def scale_sizes(sizes: Sizes, scheme: Scheme) -> Sizes:
    """Of the scale tensor of a weight: a matrix block-wise, else one number."""
    return tuple(-(-size // BLOCK) for size in sizes) if scheme == "fp8_block" else (1,)


def scales_for(shape: ModelShape, weights: Weights) -> dict[str, Scale]:
    """The scales of every quantised weight, by the weight's name, in the global order of export.

    With one scale a tensor, the parts of a fused projection share theirs: servers fuse them again and would
    otherwise round a second time, to the largest of the scales.
    """
    if weights == "as_trained":
        return {}
    whole = Chunk(layer_offset=0, num_layers=shape.num_layers, first=True, last=True)
    scales: dict[str, Scale] = {}
    start = 0
    for parameter in parameters_of(shape, whole, "local"):
        if not isinstance(parameter.layout, _LINEAR):
            continue
        for name, (rows, columns) in zip(parameter.hf, parameter.layout.hf_sizes, strict=True):
            cell = (BLOCK, BLOCK) if weights == "fp8_block" else (rows, columns)
            scale = Scale(
                weight=name,
                name=name + SCALE_SUFFIX[weights],
                cell=cell,
                grid=(-(-rows // cell[0]), -(-columns // cell[1])),
                start=start,
                scheme=weights,
            )
            scales[name] = scale
            start = scale.stop if weights == "fp8_block" else start
        start += weights == "fp8_tensor"
    return scales


def check_blocks(shape: ModelShape, num_targets: int) -> None:
    """ConfigError unless a server of `num_targets` tensor ranks can cut every projection between its blocks.

    vLLM's rule for what it fuses or shares out; a key and value head that ranks share is whole on each.
    """
    parts = {
        "query rows": shape.num_heads * shape.head_dim // num_targets,
        "key rows": max(1, shape.num_kv_heads // num_targets) * shape.head_dim,
        "MLP rows": shape.ffn_size // num_targets,
    }
    if cut := {what: size for what, size in parts.items() if size % BLOCK}:
        found = ", ".join(f"{size} {what}" for what, size in cut.items())
        raise ConfigError(
            f'publish.weights = "fp8_block": a server rank of this model holds {found}, and vLLM takes whole '
            f'blocks of {BLOCK} only; use "as_trained", "fp8_tensor" (GPUs), or fewer ranks a server '
            "(rollout.servers.tensor)"
        )


def with_scales(plan: Plan, scales: Mapping[str, Scale]) -> Plan:
    """The plan of the same model with these weights in FP8.

    Ranks hold a scale tensor whole beside each of its weights, as a parameter of the same name. Tensors of
    wider elements come first, so that each begins where its elements may.
    """
    holders = {
        (copy.pipeline_rank, copy.chunk, copy.tensor_rank, copy.hf): copy
        for copy in plan.copies
        if copy.hf in scales
    }
    names = {scale.name: scale.sizes for scale in scales.values()}
    plain = {name: sizes for name, sizes in plan.tensors.items() if name not in scales}
    quantised = {name: plan.tensors[name] for name in scales}
    own_dtypes: dict[str, Dtype] = {
        **dict.fromkeys(names, "float32"),
        **dict.fromkeys(quantised, "float8_e4m3"),
    }
    return Plan(
        tensors=names | plain | quantised,
        own_dtypes=own_dtypes,
        chunks=plan.chunks,
        shards=(*plan.shards, *(_shard(copy, scales[copy.hf]) for copy in holders.values())),
        copies=(*plan.copies, *(_copy(copy, scales[copy.hf]) for copy in holders.values())),
    )


def _shard(holder: Copy, scale: Scale) -> Shard:
    return Shard(
        pipeline_rank=holder.pipeline_rank,
        chunk=holder.chunk,
        tensor_rank=holder.tensor_rank,
        parameter=scale.name,
        sizes=scale.sizes,
    )


def _copy(holder: Copy, scale: Scale) -> Copy:
    box = tuple((0, size) for size in scale.sizes)
    return msgspec.structs.replace(
        holder,
        parameter=scale.name,
        shard=box,
        hf=scale.name,
        hf_box=box,
        exported=holder.tensor_rank == 0,
    )


_LAYER = re.compile(r"(.*\blayers\.)(\d+)(\..+)")


def by_layers(names: Iterable[str]) -> tuple[str, ...]:
    """Names in short, sorted, none lost: `model.layers.0-29.mlp.up_proj.weight`, with gaps `0-3,5`."""
    layers: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
    others: set[str] = set()
    for name in names:
        if match := _LAYER.fullmatch(name):
            layers[match[1], match[3]].add(int(match[2]))
        else:
            others.add(name)
    short = {f"{before}{_runs(numbers)}{after}" for (before, after), numbers in layers.items()}
    return tuple(sorted(short | others))


def _runs(numbers: set[int]) -> str:
    """0-3,5 for 0, 1, 2, 3, 5."""
    runs = [
        [number for _, number in run]
        for _, run in groupby(enumerate(sorted(numbers)), key=lambda entry: entry[1] - entry[0])
    ]
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
