"""How do weights get from Megatron shards into Hugging Face tensors, and back?

    chunks[i][parameter][box]  --ShardExport-->      arena.views[hf][box]
    chunks[i][parameter][box]  <--load_hf_weights--  folder's safetensors, mapped

One strided copy for each box of the plan, straight from parameter to destination: no gather, no
temporary, no full model in any rank. A chunk is the named parameters of one model chunk, without the
prefixes that wrappers add.
"""

import ctypes
import mmap
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import prod
from pathlib import Path

import msgspec
import torch
from torch import Tensor

from apriel_mcore.bridge.arena import Arena, tensor_views
from apriel_mcore.bridge.layouts import Box, Sizes
from apriel_mcore.bridge.names import HF_EMBEDDING, HF_HEAD, plain_name
from apriel_mcore.bridge.plan import Coordinates, Copy, Plan
from apriel_mcore.bridge.tensorfile import contents, refuse_fp8
from apriel_mcore.errors import BridgeError, InputError

Chunks = Sequence[Mapping[str, Tensor]]


class LoadReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a rank read."""

    num_tensors: int
    """HF tensors of the decoder in the folder."""
    num_bytes: int
    """Bytes this rank copied out of them."""
    dropped: tuple[str, ...]
    """Tensors that the decoder does not have: of other modalities, or a tied head written out."""


class ShardExport:
    """A rank's boxes (`Plan.exports_of`) bound to one arena, to be written for every version.

    Making a view costs more than copying a small box, so copies are prepared once. When a parameter's
    storage moved since (a new `.data`), they are prepared again.
    """

    def __init__(self, copies: Sequence[Copy], arena: Arena) -> None:
        self._copies = copies
        self._targets = [arena.views[copy.hf][_slices(copy.hf_box)] for copy in copies]
        self._addresses: list[int] = []
        self._moves: list[Callable[[], object]] = []

    @torch.no_grad()
    def run(self, chunks: Chunks) -> None:
        """Copy every box into the arena, cast to the arena's dtype."""
        parameters = [chunks[copy.chunk][copy.parameter] for copy in self._copies]
        addresses = [parameter.data_ptr() for parameter in parameters]
        if addresses != self._addresses:
            boxes = [_slices(copy.shard) for copy in self._copies]
            sources = [tensor.detach()[box] for tensor, box in zip(parameters, boxes, strict=True)]
            self._moves = [_move(*pair) for pair in zip(self._targets, sources, strict=True)]
            self._addresses = addresses
        for move in self._moves:
            move()


def _move(target: Tensor, source: Tensor) -> Callable[[], object]:
    """One box's copy, ready to run.

    Equal blocks of CPU memory go by memmove: past a certain size (processes.py lowers it) it writes around
    the cache, which torch's own loop does not, and takes half the time.
    """
    on_cpu = target.device.type == source.device.type == "cpu"
    if on_cpu and target.dtype == source.dtype and target.is_contiguous() and source.is_contiguous():
        num_bytes = source.numel() * source.element_size()
        return partial(ctypes.memmove, target.data_ptr(), source.data_ptr(), num_bytes)
    return partial(target.copy_, source)


def export_shard(chunks: Chunks, copies: Sequence[Copy], arena: Arena) -> None:
    """Write a rank's boxes into the arena, once; see ShardExport."""
    ShardExport(copies, arena).run(chunks)


@torch.no_grad()
def load_hf_weights(chunks: Chunks, plan: Plan, rank: Coordinates, folder: Path) -> LoadReport:
    """Fill a rank's parameters, in place, from a Hugging Face folder; padded vocabulary rows become zero.

    Only the pages of the rank's own boxes are read. BridgeError lists every tensor that is missing,
    left over or of other sizes, on either side; then nothing has been written.
    """
    check_shards(chunks, plan, rank)
    tensors, dropped = read_folder(folder)
    if HF_HEAD not in plan.tensors and HF_HEAD in tensors and HF_EMBEDDING in tensors:
        _check_copy(tensors.pop(HF_HEAD), tensors[HF_EMBEDDING], where=str(folder))
        dropped = (*dropped, HF_HEAD)
    check_tensors(tensors, plan.tensors, where=str(folder))
    copies = plan.copies_of(rank)
    covered: defaultdict[tuple[int, str], int] = defaultdict(int)
    for copy in copies:
        covered[copy.chunk, copy.parameter] += _num_elements(copy.shard)
    for shard in plan.shards_of(rank):
        if covered[shard.chunk, shard.parameter] < prod(shard.sizes):
            chunks[shard.chunk][shard.parameter].zero_()
    num_bytes = 0
    for copy in copies:
        source = tensors[copy.hf][_slices(copy.hf_box)]
        chunks[copy.chunk][copy.parameter][_slices(copy.shard)].copy_(source)
        num_bytes += source.numel() * source.element_size()
    return LoadReport(num_tensors=len(tensors), num_bytes=num_bytes, dropped=dropped)


def check_shards(chunks: Chunks, plan: Plan, rank: Coordinates) -> None:
    """BridgeError listing the parameters that are missing, unknown or of other sizes than planned."""
    planned: list[dict[str, Sizes]] = [{} for _ in rank.chunks]
    for shard in plan.shards_of(rank):
        planned[shard.chunk][shard.parameter] = shard.sizes
    for index, (chunk, expected) in enumerate(zip(chunks, planned, strict=True)):
        where = f"tensor rank {rank.tensor_rank}, pipeline rank {rank.pipeline_rank}, chunk {index}"
        check_tensors(chunk, expected, where=where)


def check_tensors(found: Mapping[str, Tensor], expected: Mapping[str, Sizes], *, where: str) -> None:
    """BridgeError naming each tensor that is missing, left over, or of other sizes than expected."""
    problems = [f"missing {name}" for name in expected.keys() - found.keys()]
    problems += [f"left over {name}" for name in found.keys() - expected.keys()]
    problems += [
        f"{name} is {tuple(found[name].shape)}, expected {sizes}"
        for name, sizes in expected.items()
        if name in found and tuple(found[name].shape) != sizes
    ]
    if problems:
        shown = "; ".join(sorted(problems)[:12])
        more = f"; and {len(problems) - 12} more" if len(problems) > 12 else ""
        raise BridgeError(f"{where}: {len(problems)} tensors do not fit the model: {shown}{more}")


def read_folder(folder: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Every decoder tensor of a folder under its plain name, mapped and not read, and the dropped names.

    Privately mapped: writing to them never reaches the file. InputError without safetensors files,
    BridgeError when two stored names mean the same tensor.
    """
    tensors: dict[str, Tensor] = {}
    dropped: list[str] = []
    for path in tensor_files(folder):
        with path.open("rb") as file:
            mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        with memoryview(mapping) as whole:
            refuse_fp8(contents(whole, where=str(path)), where=str(path))
        for stored, tensor in tensor_views(mapping, where=str(path)).items():
            plain = plain_name(stored)
            if plain is None:
                dropped.append(stored)
            elif plain in tensors:
                raise BridgeError(f"{path}: {stored} holds {plain}, which the folder already has")
            else:
                tensors[plain] = tensor
    return tensors, tuple(dropped)


def _check_copy(head: Tensor, embedding: Tensor, *, where: str) -> None:
    """Some models are published with their tied head written out; BridgeError when it is not the embedding,
    byte for byte."""
    alike = (head.dtype, head.shape) == (embedding.dtype, embedding.shape)
    if not alike or not torch.equal(head.view(torch.uint8), embedding.view(torch.uint8)):
        raise BridgeError(
            f"{where}: {HF_HEAD} differs from {HF_EMBEDDING}, to which config.json ties it "
            "(tie_word_embeddings): say false there, or take the head out"
        )


class _Index(msgspec.Struct, frozen=True):
    weight_map: dict[str, str]


def tensor_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder: those its index names, or model.safetensors; InputError if none."""
    index = folder / "model.safetensors.index.json"
    paths = [folder / "model.safetensors"]
    if index.exists():
        try:
            shards = msgspec.json.decode(index.read_bytes(), type=_Index).weight_map.values()
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{index}: {error}") from None
        paths = [folder / name for name in sorted(set(shards))]
    for path in paths:
        if not path.is_file() or path.stat().st_size == 0:
            raise InputError(f"{path}: no such file, or empty; give a folder with its safetensors complete")
    return paths


def _slices(box: Box) -> tuple[slice, ...]:
    return tuple(slice(start, stop) for start, stop in box)


def _num_elements(box: Box) -> int:
    return prod(stop - start for start, stop in box)
