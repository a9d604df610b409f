"""A Megatron checkpoint, converted or of training, becomes a Hugging Face folder.

    config, tokenizer and metadata as conversion.json has them; every record of the model's tensors, there
    and long enough; files as the run's manifest has them
      --for each file: read a parameter, take it apart, write; read it back, compare digests-->
    index, config, tokenizer  -->  parity of log-probs  -->  conversion.json, rename

Optimizer state stays behind. The folder holds the text decoder under plain names.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from math import prod
from pathlib import Path
from typing import Protocol

import msgspec

from apriel_mcore.bridge import shape as model_shape
from apriel_mcore.bridge.tensorfile import Dtype
from apriel_mcore.convert import companions, parity, report, results
from apriel_mcore.convert.boxes import take_apart
from apriel_mcore.convert.checkpoint_reader import CheckpointReader
from apriel_mcore.convert.hf_writer import GrowingFile, WeightFile, growing, plan_files, write_index
from apriel_mcore.convert.journal import Finished
from apriel_mcore.convert.ledger import Ledger
from apriel_mcore.convert.parameters import Parameter, model_parameters
from apriel_mcore.convert.report import Direction, Job, Parity, Report, TensorRecord
from apriel_mcore.convert.results import HfResult, ReadsOne
from apriel_mcore.convert.scratch import TORCH_DTYPES, Scratch
from apriel_mcore.convert.workers import Workers
from apriel_mcore.convert.workplace import Workplace, check_room, finished_report, workplace


class Reads(ReadsOne, Protocol):
    """All of them, and what is known of their files."""

    def check_fits(self, parameters: Sequence[Parameter]) -> None:
        """InputError naming what does not fit."""
        ...

    def fingerprint(self) -> str:
        """Changes when the source does."""
        ...

    def check_manifest(self) -> None:
        """InputError naming the files that are not what was saved, as far as somebody noted that."""
        ...


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """What is written as a folder."""

    reader: Reads
    direction: Direction
    name: str
    model: Path
    """The Hugging Face folder with its config and tokenizer."""
    recorded: Mapping[str, tuple[Dtype, str]]
    """What an earlier conversion says of the tensors."""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """The folder to be written."""

    folder: Path
    dtype: Dtype
    max_file_bytes: int


def convert(
    source: Path, target: Path, *, like: Path | None, dtype: Dtype | None, max_file_bytes: int, probe: bool
) -> Report:
    """Write `target`, or go on where an interrupted call stopped; the report that lies in it.

    like: the model folder the checkpoint came from, where the checkpoint does not say. dtype: of the
    folder; None keeps the checkpoint's. InputError for every defect of the source, by name, with nothing
    left behind.
    """
    earlier = report.read(source)
    if earlier is not None:
        results.check_carried(source, earlier, model=like is None)
    reader = CheckpointReader.open(source)
    model = companions.model_of(source, like)
    reader.check_fits(model_parameters(model_shape.read(model)))
    return write_folder(
        Source(
            reader=reader,
            direction="mcore-to-hf",
            name=str(source),
            model=model,
            recorded=earlier.digests if earlier else {},
        ),
        Target(folder=target, dtype=dtype or reader.dtype(), max_file_bytes=max_file_bytes),
        compare=lambda folder, size: parity.check(source, folder, num_elements=size, wanted=probe),
    )


def write_folder(source: Source, target: Target, *, compare: Callable[[Path, int], Parity]) -> Report:
    """The folder of a source that fits, and its report. `compare` tells the parity of a folder whose tensors
    have so many elements."""
    shape = model_shape.read(source.model)
    parameters = model_parameters(shape)
    files = plan_files(parameters, target.dtype, target.max_file_bytes)
    options = {
        "dtype": target.dtype,
        "max_file_bytes": str(target.max_file_bytes),
        **companions.described(source.model),
    }
    fingerprint = source.reader.fingerprint()
    job = Job.of(source.direction, source.name, fingerprint=fingerprint, options=options)
    finished = HfResult(target.folder)
    done = finished_report(
        finished,
        job,
        source=partial(results.digests_of, source.reader, parameters),
        compare=partial(compare, target.folder, shape.num_parameters),
    )
    if done is not None:
        return done
    check_room(target.folder, sum(file.size for file in files))
    source.reader.check_manifest()
    with workplace(target.folder, job) as place:
        folder = _Folder(place, source, target.dtype)
        parts = [folder.finish(file) for file in files]
        write_index(place.folder, files, target.dtype)
        companions.copy_for_decoder(source.model, place.folder, target.dtype)
        found = compare(place.folder, shape.num_parameters)
        return place.write_report(HfResult(place.folder), parts, parity=found, dropped=())


class _Folder:
    """The weight files of one folder, one after the other; a file's parameters are dealt to the workers."""

    def __init__(self, place: Workplace, source: Source, dtype: Dtype) -> None:
        self._place = place
        self._reader = source.reader
        self._workers = Workers(lambda: _Worker(source, dtype))
        self._element_bytes = max(TORCH_DTYPES[each].itemsize for each in (source.reader.dtype(), dtype))

    def finish(self, file: WeightFile) -> Finished:
        """The file, written and read back, or found so."""
        journal = self._place.journal
        return journal.part(file.name, partial(self._is_intact, file), partial(self._write, file))

    def _is_intact(self, file: WeightFile, part: Finished) -> bool:
        """What the journal promises is what the file holds, and what the source still does."""
        path = self._place.folder / file.name
        if not path.is_file() or path.stat().st_size != file.size:
            return False
        with path.open("rb") as stream:
            if stream.read(len(file.opening)) != file.opening:
                return False

        found = self._workers.map(lambda _, name: file.digest_of(name, path), file.tensors, holds=lambda _: 0)
        if found != [record.digest_after for record in part.tensors]:
            return False
        return results.still_has(results.digests_of(self._reader, file.parameters), part.tensors)

    def _write(self, file: WeightFile) -> Finished:
        with growing(self._place.folder, file) as grown:

            def convert_one(worker: _Worker, parameter: Parameter) -> list[TensorRecord]:
                return worker.convert(file, grown, parameter)

            def num_bytes(parameter: Parameter) -> int:
                return parameter.num_elements * self._element_bytes

            records = chain.from_iterable(self._workers.map(convert_one, file.parameters, holds=num_bytes))
        return Finished(part=file.name, tensors=tuple(records))


class _Worker:
    """Converts one parameter at a time, with memory of its own."""

    def __init__(self, source: Source, dtype: Dtype) -> None:
        self._source = source
        self._reader = source.reader
        self._dtype: Dtype = dtype
        self._stored, self._apart, self._cast = Scratch(), Scratch(), Scratch()

    def convert(self, file: WeightFile, grown: GrowingFile, parameter: Parameter) -> list[TensorRecord]:
        """A parameter's HF tensors, out of the checkpoint, into their places, and read back."""
        ledger = Ledger(file.name, self._dtype, self._source.recorded, where=self._source.name)
        ledger.watch({name: prod(sizes) for name, sizes in parameter.hf_sizes.items()})
        unknown = not parameter.hf_sizes.keys() <= self._source.recorded.keys()
        stored = self._reader.read(parameter, self._stored, verify=unknown)
        for name, tensor in take_apart(parameter, stored, self._apart).items():
            cast = self._cast.tensor(tuple(tensor.shape), self._dtype)  # takes no memory until it is filled
            grown.put(file.starts[name], ledger.see(name, tensor, cast_into=cast))
        ledger.watch({})
        return [
            ledger.compare(name, sizes, file.digest_of(name, grown.path))
            for name, sizes in parameter.hf_sizes.items()
        ]
