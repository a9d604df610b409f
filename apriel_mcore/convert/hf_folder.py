"""Which tensors does a Hugging Face folder hold, and is it what its index and its headers say?

Headers are read at once and checked against the model; a tensor's bytes are read when it is asked for,
into memory that the caller keeps.
"""

import hashlib
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import msgspec
from torch import Tensor

from apriel_mcore.bridge import shape as model_shape
from apriel_mcore.bridge.layouts import Sizes
from apriel_mcore.bridge.names import HF_EMBEDDING, HF_HEAD, hf_tensors, plain_name
from apriel_mcore.bridge.reshard import tensor_files
from apriel_mcore.bridge.shape import ModelShape
from apriel_mcore.bridge.tensorfile import Dtype, Stored, contents, refuse_fp8
from apriel_mcore.convert import companions, report
from apriel_mcore.convert.digest import digest_in_file
from apriel_mcore.convert.mapped import mapped
from apriel_mcore.errors import InputError

INDEX_FILE = "model.safetensors.index.json"
_SHOWN = 12
_SIXTEEN_BITS = frozenset({"bfloat16", "float16"})


class _Index(msgspec.Struct, frozen=True):
    weight_map: dict[str, str]


class Located(msgspec.Struct, frozen=True, kw_only=True):
    """A decoder tensor and the file it lies in."""

    path: Path
    stored_name: str
    stored: Stored

    def digest(self) -> str:
        """Of its bytes, read now; InputError when the file ends before."""
        return digest_in_file(self.path, self.stored.start, self.stored.num_bytes, what=self.stored_name)


class HfFolder(msgspec.Struct, frozen=True, kw_only=True):
    """A checked folder: exactly the tensors of its model, each once."""

    path: Path
    shape: ModelShape
    tensors: dict[str, Located]
    """By plain name."""
    dropped: tuple[str, ...]
    """Stored names of other modalities."""
    tied_head: Located | None
    """A head that the decoder does not have, written out all the same: byte for byte the embedding."""
    num_elements: int
    """Of all tensors, those of other modalities included."""
    fingerprint: str
    """Changes when a file of weights does, as far as names, sizes, times and headers tell: what was made of
    them before is compared with their digests."""
    recorded: dict[str, tuple[Dtype, str]]
    """Digests that an earlier conversion wrote beside the tensors."""

    @classmethod
    def open(cls, path: Path) -> Self:
        """Every header read; InputError names each tensor that is damaged, missing, left over, twice there,
        or of another size or 16-bit dtype than config.json says."""
        shape = model_shape.read(path)
        files = tensor_files(path)
        held = {file: located_in(file) for file in files}
        _check_index(path, held)
        tensors, dropped = _by_plain_name(held)
        tied_head = tensors.pop(HF_HEAD, None) if shape.tied else None
        check_sizes(
            {name: at.stored.sizes for name, at in tensors.items()}, hf_tensors(shape), where=str(path)
        )
        _check_kinds(path, tensors)
        if tied_head is not None:
            _check_same(tied_head, tensors[HF_EMBEDDING])
        earlier = report.read(path)
        return cls(
            path=path,
            shape=shape,
            tensors=tensors,
            dropped=dropped,
            tied_head=tied_head,
            num_elements=sum(_num_elements(stored) for found in held.values() for stored in found.values()),
            fingerprint=_fingerprint(held),
            recorded=earlier.digests if earlier else {},
        )

    def dtype(self) -> Dtype:
        """The one that all tensors share; InputError naming the odd ones."""
        by_dtype: dict[Dtype, list[str]] = {}
        for name, at in self.tensors.items():
            by_dtype.setdefault(at.stored.dtype, []).append(name)
        if len(by_dtype) > 1:
            usual = max(by_dtype, key=lambda dtype: len(by_dtype[dtype]))
            odd = [
                f"{name} is {dtype}" for dtype, names in by_dtype.items() if dtype != usual for name in names
            ]
            raise InputError(
                f"{self.path}: {_some(odd)}, the others {usual}; choose one with --dtype bf16 or --dtype fp32"
            )
        return next(iter(by_dtype))

    def read(self, name: str) -> Tensor:
        """One tensor, in the file's own pages."""
        at = self.tensors[name]
        return mapped(at.path, at.stored.start, at.stored.sizes, at.stored.dtype, what=at.stored_name)


def check_sizes(found: Mapping[str, Sizes], expected: Mapping[str, Sizes], *, where: str) -> None:
    """InputError naming each tensor that is missing, left over, or of other sizes than expected."""
    problems = [f"missing {name}" for name in expected.keys() - found.keys()]
    problems += [f"left over {name}" for name in found.keys() - expected.keys()]
    problems += [
        f"{name} is {found[name]}, expected {sizes}"
        for name, sizes in expected.items()
        if name in found and found[name] != sizes
    ]
    if problems:
        raise InputError(
            f"{where}: {len(problems)} tensors do not fit config.json: {_some(sorted(problems))}"
        )


def _some(problems: list[str]) -> str:
    more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    return "; ".join(problems[:_SHOWN]) + more


def located_in(path: Path) -> dict[str, Stored]:
    """The tensors of one file."""
    with path.open("rb") as file:
        whole = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    stored = contents(whole, where=str(path))
    refuse_fp8(stored, where=str(path))
    return stored


def _check_index(folder: Path, held: Mapping[Path, Mapping[str, Stored]]) -> None:
    """The index must place every tensor where it is, and no other."""
    path = folder / INDEX_FILE
    if not path.exists():
        return
    placed = msgspec.json.decode(path.read_bytes(), type=_Index).weight_map
    true = {(name, file.name) for file, found in held.items() for name in found}
    said = set(placed.items())
    lies = [f"{name} is not in {file}" for name, file in sorted(said - true)]
    lies += [f"{file} holds {name}, which is not placed there" for name, file in sorted(true - said)]
    if lies:
        raise InputError(f"{path}: does not match its files: {_some(lies)}")


def _by_plain_name(
    held: Mapping[Path, Mapping[str, Stored]],
) -> tuple[dict[str, Located], tuple[str, ...]]:
    tensors: dict[str, Located] = {}
    dropped: list[str] = []
    for path, found in held.items():
        for stored_name, stored in found.items():
            plain = plain_name(stored_name)
            if plain is None:
                dropped.append(stored_name)
            elif plain in tensors:
                other = tensors[plain]
                raise InputError(
                    f"{path}: {stored_name} is {plain}, and so is {other.stored_name} in {other.path.name}"
                )
            else:
                tensors[plain] = Located(path=path, stored_name=stored_name, stored=stored)
    return tensors, tuple(dropped)


def _check_kinds(folder: Path, tensors: Mapping[str, Located]) -> None:
    """InputError naming tensors of another 16-bit kind than config.json says or, if it says none, than most.

    A header that says F16 of bfloat16 bytes has the right sizes and reads as other, finite numbers. float32
    has another size and is wider: publishers keep norms in it, and it may stand beside either.
    """
    by_kind: dict[Dtype, list[str]] = {}
    for name, at in tensors.items():
        if at.stored.dtype in _SIXTEEN_BITS:
            by_kind.setdefault(at.stored.dtype, []).append(name)
    said = companions.dtypes_of(folder) & _SIXTEEN_BITS
    usual = said or set(sorted(by_kind, key=lambda kind: len(by_kind[kind]))[-1:])
    wrong = [f"{name} is {kind}" for kind, names in by_kind.items() if kind not in usual for name in names]
    if wrong:
        source = "config.json's dtype is" if said else "the other 16-bit tensors are"
        raise InputError(
            f"{folder}: {_some(wrong)}, {source} {' or '.join(sorted(usual))}: one of the two is "
            "wrong, and read so the weights are other numbers; fetch the folder again, or put the true dtype "
            "into config.json"
        )


def _check_same(head: Located, embedding: Located) -> None:
    """InputError unless a head that config.json ties to the embedding is the same bytes."""

    def content(at: Located) -> tuple[Dtype, Sizes, str]:
        return at.stored.dtype, at.stored.sizes, at.digest()

    if content(head) != content(embedding):
        raise InputError(
            f"{head.path}: {head.stored_name} differs from {embedding.stored_name}, to which config.json "
            "ties it (tie_word_embeddings): say false there, or take the head out"
        )


def _fingerprint(held: Mapping[Path, Mapping[str, Stored]]) -> str:
    digest = hashlib.sha256()
    for path, found in held.items():
        digest.update(f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}\n".encode())
        digest.update(msgspec.json.encode(found))
    return digest.hexdigest()


def _num_elements(stored: Stored) -> int:
    count = 1
    for size in stored.sizes:
        count *= size
    return count
