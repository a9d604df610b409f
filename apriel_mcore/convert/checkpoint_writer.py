"""How is a Megatron checkpoint written without ever holding it? Its format is torch's own (DCP).

    boxes of the global tensors, planned --write--> one file at a time, each box made when torch asks
    all files written             --finish--> .metadata and metadata.json: now it is a checkpoint

torch's FileSystemWriter writes every byte; what is ours is the planner, which makes a box only when its
turn comes, and the renaming of each file when it is whole.
"""

import io
import json
import os
from collections.abc import Buffer, Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner, create_default_global_save_plan
from torch.distributed.checkpoint.filesystem import FileSystem, FileSystemWriter, _StorageInfo, _StoragePrefix
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import SavePlan, TensorWriteData, WriteItem, WriteItemType
from torch.distributed.checkpoint.storage import WriteResult
from torch.serialization import get_crc32_options, set_crc32_options

from apriel_mcore.bridge.tensorfile import Dtype
from apriel_mcore.convert.hf_writer import PIECE
from apriel_mcore.convert.journal import Place
from apriel_mcore.convert.parameters import Cut, Parameter
from apriel_mcore.convert.scratch import TORCH_DTYPES

_EXTRA_STATE = "_extra_state"
_COMMON_STATE = "common_state/shard_0_1"
_MEGATRON_METADATA = {"sharded_backend": "torch_dist", "sharded_backend_version": 1}

type MakeBox = Callable[[Parameter, Cut], Tensor]


class CheckpointFile:
    """The boxes and objects that one file of the checkpoint holds, in their order."""

    def __init__(self, name: str, parameters: Sequence[Parameter], num_ranks: int, dtype: Dtype) -> None:
        self.name = f"__{name}_0.distcp"
        self.prefix = f"__{name}_"
        self.parameters = parameters
        self.dtype: Dtype = dtype
        self.boxes: dict[MetadataIndex, tuple[Parameter, Cut]] = {}
        self.items: list[WriteItem] = [
            WriteItem(index=MetadataIndex(key), type=WriteItemType.BYTE_IO) for key in _objects_of(parameters)
        ]
        for parameter in parameters:
            size = torch.Size(parameter.stored_sizes(num_ranks))
            for cut in parameter.cuts(num_ranks):
                item = _write_item(parameter, cut, size, dtype)
                self.items.append(item)
                self.boxes[item.index] = (parameter, cut)


class CheckpointWriter:
    """Writes the files of one checkpoint into a folder."""

    def __init__(self, folder: Path, files: Sequence[CheckpointFile], *, checksums: bool) -> None:
        """checksums: in the records, for readers (checkpoint_reader.py) who have no digest of the tensors;
        torch.load never compares them."""
        self._folder = folder
        self._checksums = checksums
        # Beside a GPU torch would ask for boxes ahead of writing them; a box is valid until the next is made.
        self._writer = FileSystemWriter(folder, per_thread_copy_ahead=0)
        self._writer.fs = _WholeFiles()
        every = [item for file in files for item in file.items]
        every.append(WriteItem(index=MetadataIndex(_COMMON_STATE), type=WriteItemType.BYTE_IO))
        _, self._metadata = create_default_global_save_plan([SavePlan(every)])

    @property
    def tensors(self) -> dict[str, TensorStorageMetadata]:
        """What the checkpoint will say about its tensors."""
        described = self._metadata.state_dict_metadata
        return {key: found for key, found in described.items() if isinstance(found, TensorStorageMetadata)}

    def write(self, file: CheckpointFile, make_box: MakeBox) -> tuple[Place, ...]:
        """One file, complete under its name when this returns; where its records lie."""
        return self._write(file.prefix, file.items, _Planner(file, make_box))

    def finish(self, places: Iterable[Place]) -> None:
        """What turns the files into a checkpoint; `places` are those of every file."""
        common = [WriteItem(index=MetadataIndex(_COMMON_STATE), type=WriteItemType.BYTE_IO)]
        places = [*places, *self._write("__common_", common, _Planner(None, _no_boxes))]
        results = [WriteResult(_index(p), p.length, _StorageInfo(p.file, p.start, p.length)) for p in places]
        self._writer.finish(self._metadata, [results])
        (self._folder / "metadata.json").write_text(json.dumps(_MEGATRON_METADATA))

    def _write(self, prefix: str, items: list[WriteItem], planner: "_Planner") -> tuple[Place, ...]:
        plan = SavePlan(items, storage_data=_StoragePrefix(prefix))
        with _checksums(self._checksums):
            results = self._writer.write_data(plan, planner).wait()
        return tuple(_place(result.index, result.storage_data) for result in results)


@contextmanager
def _checksums(wanted: bool) -> Generator[None]:
    """Whether torch.save puts a CRC-32 into each record on this thread: half the time of writing one."""
    kept = get_crc32_options()
    set_crc32_options(wanted)
    try:
        yield
    finally:
        set_crc32_options(kept)


def storage_of(places: Iterable[Place]) -> dict[MetadataIndex, _StorageInfo]:
    """Where records lie, in torch's words."""
    return {_index(place): _StorageInfo(place.file, place.start, place.length) for place in places}


class _Planner(DefaultSavePlanner):
    """Gives torch's writer each item when its turn comes."""

    def __init__(self, file: CheckpointFile | None, make_box: MakeBox) -> None:
        super().__init__(flatten_state_dict=False)
        self._file = file
        self._make_box = make_box

    def resolve_data(self, write_item: WriteItem) -> Tensor | io.BytesIO:
        """A box of a tensor, or an object in Megatron's wrapping: a list of one."""
        if write_item.type == WriteItemType.BYTE_IO:
            content = io.BytesIO()
            torch.save([{}] if write_item.index.fqn == _COMMON_STATE else [None], content)
            return content
        assert self._file is not None, "only objects belong to no file"
        parameter, cut = self._file.boxes[write_item.index]
        return self._make_box(parameter, cut).view(parameter.layer_in_front(cut.sizes))


class _InPieces(io.FileIO):
    """Writes as much at once as is fast."""

    def write(self, data: Buffer, /) -> int:
        """All of it."""
        with memoryview(data) as view, view.cast("B") as source:
            done = 0
            while done < len(source):
                done += super().write(source[done : done + PIECE])
        return done


class _WholeFiles(FileSystem):
    """A file gets its name when all of it is on disk."""

    @contextmanager
    def create_stream(self, path: str | os.PathLike[str], mode: str) -> Generator[io.IOBase, None, None]:
        partial = Path(f"{os.fspath(path)}.partial")
        with _InPieces(partial, mode) as stream:
            yield stream
        partial.rename(path)


def _objects_of(parameters: Sequence[Parameter]) -> list[str]:
    """The extra states that Megatron asks for beside the parameters: empty without FP8.

    One for every projection. Transformer Engine's modules may also have those of attention and of norms that
    are not part of a projection; what is not asked for does no harm.
    """
    keys: list[str] = []
    for parameter in parameters:
        module, _, kind = parameter.key.rpartition(".")
        name = module.rpartition(".")[2]
        at = "0_1" if parameter.layer is None else f"{parameter.layer}_{parameter.num_layers}"
        if kind == "weight" and (name.startswith("linear_") or name.endswith("layernorm")):
            keys.append(f"{module}.{_EXTRA_STATE}/shard_{at}")
        if kind == "weight" and module.endswith("self_attention.linear_qkv"):
            keys.append(f"{module.removesuffix('linear_qkv')}core_attention.{_EXTRA_STATE}/shard_{at}")
    return keys


def _write_item(parameter: Parameter, cut: Cut, size: torch.Size, dtype: Dtype) -> WriteItem:
    offsets = torch.Size(parameter.in_checkpoint(cut.offsets))
    return WriteItem(
        index=MetadataIndex(parameter.key, offsets),
        type=WriteItemType.SHARD,
        tensor_data=TensorWriteData(
            chunk=ChunkStorageMetadata(
                offsets=offsets, sizes=torch.Size(parameter.layer_in_front(cut.sizes))
            ),
            properties=TensorProperties(dtype=TORCH_DTYPES[dtype]),
            size=size,
        ),
    )


def _place(index: MetadataIndex, storage: _StorageInfo) -> Place:
    return Place(
        key=index.fqn,
        offsets=None if index.offset is None else tuple(index.offset),
        file=storage.relative_path,
        start=storage.offset,
        length=storage.length,
    )


def _index(place: Place) -> MetadataIndex:
    return MetadataIndex(place.key, None if place.offsets is None else torch.Size(place.offsets))


def _no_boxes(parameter: Parameter, cut: Cut) -> Tensor:
    raise AssertionError("no boxes here")
