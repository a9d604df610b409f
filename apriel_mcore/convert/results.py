"""Is a finished result still what its report says? Its tensors are read back, all its other bytes digested.

    conversion.json  <--compared-->  digest of each tensor, and of each file around its tensors

What a person put beside the result is not looked at.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

from blake3 import blake3
from torch import Tensor

from apriel_mcore.bridge.layouts import Sizes
from apriel_mcore.bridge.shape import ModelShape
from apriel_mcore.bridge.tensorfile import Dtype
from apriel_mcore.convert import report
from apriel_mcore.convert.boxes import take_apart
from apriel_mcore.convert.checkpoint_reader import CheckpointReader
from apriel_mcore.convert.digest import digest
from apriel_mcore.convert.hf_folder import Located, located_in
from apriel_mcore.convert.parameters import Parameter, model_parameters
from apriel_mcore.convert.report import Report, TensorRecord
from apriel_mcore.convert.scratch import TORCH_DTYPES, Scratch
from apriel_mcore.convert.workers import Workers
from apriel_mcore.errors import InputError

_METADATA = (".metadata", "metadata.json")

type Spans = Mapping[str, Sequence[tuple[int, int]]]
"""By file: first byte of a tensor's elements, and the one behind the last."""
type Memory = tuple[Scratch, Scratch]
"""Of a worker: for a parameter as it is stored, and taken apart."""


class ReadsOne(Protocol):
    """The model's tensors, wherever they come from, one parameter at a time."""

    def read(self, parameter: Parameter, memory: Scratch, *, verify: bool) -> Tensor:
        """One whole parameter of one layer, in `memory` if it has none of its own; InputError if damaged.

        verify: nobody knows its digest.
        """
        ...

    def dtype(self) -> Dtype:
        """Of the tensors as `read` gives them."""
        ...


class Result(Protocol):
    """Where a result keeps its tensors; its methods raise InputError when it is damaged."""

    @property
    def folder(self) -> Path:
        """All of it."""
        ...

    def spans(self) -> Spans:
        """Of all tensors."""
        ...

    def digests(self) -> Mapping[str, str]:
        """Of all tensors, by name, read now."""
        ...


class HfResult:
    """A Hugging Face folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def spans(self) -> Spans:
        """From the headers."""
        return {
            path.name: [(stored.start, stored.stop) for stored in located_in(path).values()]
            for path in self._files()
        }

    def digests(self) -> Mapping[str, str]:
        """By the names that are stored."""
        return digests_in(
            {
                name: Located(path=path, stored_name=name, stored=stored)
                for path in self._files()
                for name, stored in located_in(path).items()
            }
        )

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("*.safetensors"))


class CheckpointResult:
    """A Megatron checkpoint."""

    def __init__(self, folder: Path, shape: ModelShape) -> None:
        self.folder = folder
        self._parameters = model_parameters(shape)

    def spans(self) -> Spans:
        """From the records."""
        return self._open().spans()

    def digests(self) -> Mapping[str, str]:
        """By the names of the HF tensors."""
        return digests_of(self._open(), self._parameters)

    def _open(self) -> CheckpointReader:
        reader = CheckpointReader.open(self.folder)
        reader.check_fits(self._parameters)
        return reader


def digests_of(reader: ReadsOne, parameters: Sequence[Parameter]) -> dict[str, str]:
    """Of the HF tensors that these parameters are made of, by name."""
    itemsize = TORCH_DTYPES[reader.dtype()].itemsize
    found = Workers(lambda: (Scratch(), Scratch())).map(
        partial(read_back, reader), parameters, holds=lambda held: held.num_elements * itemsize
    )
    return {name: kept for tensors in found for name, _, kept in tensors}


def digests_in(places: Mapping[str, Located]) -> dict[str, str]:
    """Of tensors in files, by the names given."""
    found = Workers(lambda: None).map(lambda _, at: at.digest(), places.values(), holds=lambda _: 0)
    return dict(zip(places, found, strict=True))


def still_has(source: Mapping[str, str], made: Sequence[TensorRecord]) -> bool:
    """Whether the source's digests are those of the tensors that were read: its files may hold others under
    the same sizes and times."""
    return all(source.get(record.name) == record.digest_before for record in made)


def read_back(reader: ReadsOne, memory: Memory, parameter: Parameter) -> list[tuple[str, Sizes, str]]:
    """Name, sizes and digest of a parameter's HF tensors in a checkpoint."""
    stored = reader.read(parameter, memory[0], verify=False)
    tensors = take_apart(parameter, stored, memory[1])
    return [(name, tuple(tensor.shape), digest(tensor)) for name, tensor in tensors.items()]


def around_tensors(result: Result) -> dict[str, str]:
    """By relative name of each file but the report: its digest, tensors' elements left out."""
    spans = result.spans()
    files = sorted(path for path in result.folder.rglob("*") if path.is_file())
    named = {path.relative_to(result.folder).as_posix(): path for path in files}
    return {name: _digest_around(path, spans.get(name, ())) for name, path in named.items() if _counts(name)}


def check_source(result: Result, made: Report, source: Mapping[str, str]) -> None:
    """InputError naming tensors of a finished result that its source, with these digests, holds no more."""
    other = [record.name for record in made.tensors if not still_has(source, [record])]
    if other:
        more = f"; and {len(other) - 12} more" if len(other) > 12 else ""
        raise InputError(
            f"{result.folder}: was finished before, and {made.job.source} holds another "
            f"{'; '.join(other[:12])}{more} since; remove the folder, or convert into another one"
        )


def check(result: Result, made: Report) -> None:
    """InputError naming the files of a result that are not what its report says, or lack."""
    try:
        found, digests = around_tensors(result), result.digests()
        problems = {f"{name} is missing" for name in made.files.keys() - found.keys()}
        kept = made.files.keys() & found.keys()
        problems |= {f"{name} has changed" for name in kept if found[name] != made.files[name]}
        problems |= {
            f"{record.file} holds another {record.name}"
            for record in made.tensors
            if digests.get(record.name) != record.digest_after
        }
    except InputError as error:
        problems = {str(error)}
    if problems:
        raise InputError(
            f"{result.folder}: was finished before and is damaged since: {'; '.join(sorted(problems)[:12])}; "
            "remove the folder, or convert into another one"
        )


def check_carried(folder: Path, made: Report, *, model: bool) -> None:
    """InputError naming each file without tensors that is not what the conversion which made this checkpoint
    wrote; `model`: its config and tokenizer too, because they will be used."""
    names = [name for name in made.files if name.endswith(_METADATA) or (model and "/" in name)]
    problems = [
        f"{name} {'has changed' if (folder / name).is_file() else 'is missing'}"
        for name in names
        if not (folder / name).is_file() or _digest_around(folder / name, ()) != made.files[name]
    ]
    if problems:
        raise InputError(
            f"{folder}: {'; '.join(sorted(problems))} since its conversion, as {report.REPORT_FILE} there "
            "tells; put it back or convert again; for another config or tokenizer give its folder with --like"
        )


def _counts(name: str) -> bool:
    return name != report.REPORT_FILE and not name.startswith(".journal")


def _digest_around(path: Path, spans: Sequence[tuple[int, int]]) -> str:
    found, at, size = blake3(), 0, path.stat().st_size
    found.update(f"{size}\n".encode())
    with path.open("rb") as file:
        for start, stop in [*sorted(spans), (size, size)]:
            file.seek(at)
            found.update(file.read(max(0, start - at)))
            at = stop
    return found.hexdigest()
