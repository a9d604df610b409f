"""How is one parameter read out of a Megatron checkpoint, and is the checkpoint all there?

    .metadata --open--> what it holds, every file present and long enough
    one parameter --read--> its records, checked against the checksums that torch wrote into them if asked

The metadata is a pickle: it is read with the few classes that torch's own writer puts there, and nothing
else can be loaded from it. A record's elements are read straight to their place.
"""

import hashlib
import pickle
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import combinations
from math import prod
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import ReadItem
from torch.distributed.checkpoint.planner_helpers import create_read_items_for_chunk_list

from apriel_mcore import checkpoint_folder
from apriel_mcore.bridge.layouts import Sizes
from apriel_mcore.bridge.tensorfile import Dtype
from apriel_mcore.convert.hf_folder import check_sizes
from apriel_mcore.convert.mapped import mapped, read_into
from apriel_mcore.convert.parameters import Parameter
from apriel_mcore.convert.records import DAMAGE, check_sums, naming, start_in
from apriel_mcore.convert.scratch import DTYPES, Scratch
from apriel_mcore.errors import InputError

_ADMITTED = {
    "torch": {"Size", *(str(dtype).removeprefix("torch.") for dtype in (*DTYPES, torch.int64, torch.uint8))},
    "torch.serialization": {"_get_layout"},
    "torch.distributed.checkpoint.metadata": {
        "BytesStorageMetadata",
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    },
    "torch.distributed.checkpoint.planner": {"SavePlan", "TensorWriteData", "WriteItem", "WriteItemType"},
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "pathlib": {"Path", "PosixPath"},
    "collections": {"OrderedDict"},
}
_READERS = 3
"""Files whose digests are computed at once."""
_MODEL_KEYS = ("embedding.", "decoder.", "output_layer.")


class CheckpointReader:
    """The model's tensors in one checkpoint folder."""

    def __init__(
        self,
        folder: Path,
        tensors: Mapping[str, TensorStorageMetadata],
        storage: Mapping[MetadataIndex, _StorageInfo],
    ) -> None:
        self._folder = folder
        self._tensors = tensors
        self._storage = storage
        self._sealed = False
        """A run's manifest vouches for the files."""

    @classmethod
    def open(cls, folder: Path) -> Self:
        """A checkpoint that someone else wrote; InputError when its metadata cannot be used."""
        path = folder / ".metadata"
        if not (folder / "metadata.json").is_file():
            raise InputError(
                f"{folder}: no metadata.json, so not a complete Megatron checkpoint; give "
                "RUN_DIR/checkpoints/step_N, or what `apriel convert hf-to-mcore` wrote"
            )
        try:
            with path.open("rb") as file:
                metadata = _AdmittedOnly(file).load()
            tensors = {
                key: _checked_tensor(key, stored)
                for key, stored in metadata.state_dict_metadata.items()
                if isinstance(stored, TensorStorageMetadata) and key.startswith(_MODEL_KEYS)
            }
            storage = {
                MetadataIndex(index.fqn, torch.Size(index.offset)): _checked_place(info)
                for index, info in metadata.storage_data.items()
                if index.fqn in tensors
            }
        except DAMAGE as error:
            raise InputError(f"{path}: not readable as a checkpoint's metadata: {error!r}") from None
        return cls(folder, tensors, storage)

    def check_fits(self, parameters: Sequence[Parameter]) -> None:
        """InputError naming each tensor that is missing, left over, of other sizes or dtype, or without all
        of its records in the files; rows of vocabulary padding are allowed."""
        expected = {parameter.key: parameter.stored_sizes(1) for parameter in parameters}
        padded = {parameter.key for parameter in parameters if parameter.may_be_padded}
        found: dict[str, Sizes] = {}
        for key, stored in self._tensors.items():
            found[key] = tuple(stored.size)
            if key in padded and key in expected and found[key][0] > expected[key][0]:
                found[key] = (expected[key][0], *found[key][1:])
        check_sizes(found, expected, where=str(self._folder))
        for key, stored in self._tensors.items():
            self._check_records(key, stored)
        self.dtype()

    def dtype(self) -> Dtype:
        """The one that all tensors share; InputError naming one that differs."""
        first = next(iter(self._tensors))
        for key, stored in self._tensors.items():
            if stored.properties.dtype not in DTYPES:
                raise InputError(
                    f"{self._folder}: {key} is {stored.properties.dtype}, not a plain float type"
                )
            if stored.properties.dtype != self._tensors[first].properties.dtype:
                raise InputError(
                    f"{self._folder}: {key} is {stored.properties.dtype}, "
                    f"{first} is {self._tensors[first].properties.dtype}"
                )
        return DTYPES[self._tensors[first].properties.dtype]

    def check_manifest(self) -> None:
        """Compare every file of a run's checkpoint with its manifest (checkpoint_folder.py).

        InputError naming each file that is not what the run wrote, and for a run's checkpoint without one.
        """
        if not (self._folder / checkpoint_folder.MANIFEST).is_file():
            if (self._folder / checkpoint_folder.STATE_FILE).is_file():
                raise InputError(
                    f"{self._folder}: a run's checkpoint without {checkpoint_folder.MANIFEST}: no way to "
                    "tell whether it is whole; take another one of the run, or copy it again"
                )
            return
        with ThreadPoolExecutor(_READERS) as pool:
            look = partial(checkpoint_folder.defects, self._folder, num_parts=_READERS)
            found = [pool.submit(look, part=part) for part in range(_READERS)]
            problems = sorted({defect for part in found for defect in part.result()})
        if problems:
            raise InputError(
                f"{self._folder}: not what the run saved: {'; '.join(problems)}; take another checkpoint of "
                "the run, or copy it again"
            )
        self._sealed = True

    def fingerprint(self) -> str:
        """Changes when a file does, as far as sizes and times tell."""
        digest = hashlib.sha256((self._folder / ".metadata").read_bytes())
        for name in sorted({info.relative_path for info in self._storage.values()}):
            status = (self._folder / name).stat()
            digest.update(f"{name} {status.st_size} {status.st_mtime_ns}\n".encode())
        return digest.hexdigest()

    def spans(self) -> dict[str, list[tuple[int, int]]]:
        """By file: first byte of every record's elements, and the one behind the last."""
        found: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        for key, stored in self._tensors.items():
            dtype = stored.properties.dtype
            for chunk in stored.chunks:
                info = self._storage[MetadataIndex(key, chunk.offsets)]
                path = self._folder / info.relative_path
                with naming(path, key):
                    start = start_in(path, info, chunk.sizes, dtype)
                found[info.relative_path].append((start, start + prod(chunk.sizes) * dtype.itemsize))
        return found

    def read(self, parameter: Parameter, memory: Scratch, *, verify: bool) -> Tensor:
        """One whole parameter of one layer: in the file's own pages if it is one record, else in `memory`.

        verify: compare checksums, for elements whose digest nobody knows, unless a manifest was compared.
        InputError naming the parameter when a record is damaged or missing.
        """
        verify = verify and not self._sealed
        stored = self._tensors[parameter.key]
        sizes = parameter.whole.sizes
        wanted = ChunkStorageMetadata(
            offsets=torch.Size(parameter.in_checkpoint((0,) * len(sizes))),
            sizes=torch.Size(parameter.layer_in_front(sizes)),
        )
        items = create_read_items_for_chunk_list(parameter.key, stored, [wanted])
        _check_cover(items, wanted, where=f"{self._folder}: {parameter.name}")
        if len(items) == 1 and items[0].lengths == wanted.sizes:
            record = self._map(parameter, items[0].storage_index, verify=verify)
            return record[_span(items[0].storage_offsets, items[0].lengths)].view(sizes)
        whole = memory.tensor(sizes, DTYPES[stored.properties.dtype])
        for item in items:
            box = whole.view(wanted.sizes)[_span(item.dest_offsets, item.lengths)]
            if box.is_contiguous() and box.shape == self._sizes(item.storage_index):
                self._copy(parameter, item.storage_index, box, verify=verify)
            else:
                span = _span(item.storage_offsets, item.lengths)
                # Without a name: a record's pages go before those of the next one come.
                box.copy_(self._map(parameter, item.storage_index, verify=verify)[span])
        return whole

    def _map(self, parameter: Parameter, index: MetadataIndex, *, verify: bool) -> Tensor:
        """A record in the file's own pages."""
        info, sizes = self._storage[index], self._sizes(index)
        path, dtype = self._folder / info.relative_path, self._tensors[index.fqn].properties.dtype
        with naming(path, parameter.name):
            start = start_in(path, info, sizes, dtype)
            elements = mapped(path, start, sizes, DTYPES[dtype], what=parameter.name)
            if verify:
                check_sums(path, info, elements)
        return elements

    def _copy(self, parameter: Parameter, index: MetadataIndex, into: Tensor, *, verify: bool) -> None:
        """A record's elements, in memory that is there already."""
        info = self._storage[index]
        path = self._folder / info.relative_path
        with naming(path, parameter.name):
            start = start_in(path, info, self._sizes(index), into.dtype)
            read_into(path, start, into, what=parameter.name)
            if verify:
                check_sums(path, info, into)

    def _sizes(self, index: MetadataIndex) -> Sizes:
        """Of a record."""
        assert index.index is not None, "torch plans reads by chunk number"
        return tuple(self._tensors[index.fqn].chunks[index.index].sizes)

    def _check_records(self, key: str, stored: TensorStorageMetadata) -> None:
        """Every chunk has a record, and every record lies inside a file."""
        for chunk in stored.chunks:
            info = self._storage.get(MetadataIndex(key, chunk.offsets))
            if info is None:
                raise InputError(f"{self._folder}: {key} at {tuple(chunk.offsets)} has no record")
            path = self._folder / info.relative_path
            if not path.is_file():
                raise InputError(f"{path}: missing; it holds {key} at {tuple(chunk.offsets)}")
            size = path.stat().st_size
            if not 0 <= info.offset <= info.offset + info.length <= size:
                raise InputError(f"{path}: ends at {size} bytes, inside {key} at {tuple(chunk.offsets)}")


class _AdmittedOnly(pickle.Unpickler):
    """Loads torch's metadata and nothing that could do harm."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """A class or constant by name, if the writers of checkpoints put it there."""
        if global_name in _ADMITTED.get(module_name, ()):
            return super().find_class(module_name, global_name)
        raise pickle.UnpicklingError(f"{module_name}.{global_name} has no place in a checkpoint's metadata")


def _checked_tensor(key: str, stored: TensorStorageMetadata) -> TensorStorageMetadata:
    """The same from plain values; ValueError, TypeError or AttributeError when it makes no sense."""
    size = _sizes(stored.size)
    chunks = [ChunkStorageMetadata(_sizes(chunk.offsets), _sizes(chunk.sizes)) for chunk in stored.chunks]
    if len({chunk.offsets for chunk in chunks}) != len(chunks):
        raise ValueError(f"{key} has two records at one place")
    for chunk in chunks:
        spans = zip(chunk.offsets, chunk.sizes, size, strict=True)
        if not all(
            offset >= 0 and length > 0 and offset + length <= whole for offset, length, whole in spans
        ):
            raise ValueError(f"{key} has a record outside of its sizes")
    if not isinstance(stored.properties.dtype, torch.dtype):
        raise TypeError(f"{key} has dtype {stored.properties.dtype!r}")
    return TensorStorageMetadata(TensorProperties(dtype=stored.properties.dtype), size, chunks)


def _checked_place(info: _StorageInfo) -> _StorageInfo:
    """The same from plain values: a file of the folder and a stretch of it."""
    if Path(info.relative_path).name != info.relative_path or info.transform_descriptors:
        raise ValueError(f"a record lies in {info.relative_path!r}, transformed {info.transform_descriptors}")
    offset, length = _sizes((info.offset, info.length))
    return _StorageInfo(info.relative_path, offset, length)


def _sizes(numbers: Sequence[int]) -> torch.Size:
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError(f"{numbers!r} are no sizes")
    return torch.Size(numbers)


def _check_cover(items: Sequence[ReadItem], wanted: ChunkStorageMetadata, *, where: str) -> None:
    """Every element once."""
    boxes = [tuple(zip(item.dest_offsets, item.lengths, strict=True)) for item in items]
    if any(_overlap(a, b) for a, b in combinations(boxes, 2)):
        raise InputError(f"{where}: records overlap")
    covered = sum(prod(item.lengths) for item in items)
    if covered != prod(wanted.sizes):
        raise InputError(f"{where}: {prod(wanted.sizes) - covered} elements are in no record")


def _overlap(one: Sequence[tuple[int, int]], other: Sequence[tuple[int, int]]) -> bool:
    pairs = zip(one, other, strict=True)
    return all(a < b + b_size and b < a + a_size for (a, a_size), (b, b_size) in pairs)


def _span(offsets: Sequence[int], lengths: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(start, start + length) for start, length in zip(offsets, lengths, strict=True))
