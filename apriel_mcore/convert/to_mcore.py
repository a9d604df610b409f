"""A Hugging Face folder becomes a Megatron checkpoint.

    every header, checked
      --for each file: read a parameter's tensors, cut, write; read the file back, compare digests-->
    .metadata  -->  parity of log-probs  -->  conversion.json, rename

A file holds the embedding, one layer, or final norm and head, for all tensor ranks; its name starts with
the pipeline stage that will load it.
"""

from collections.abc import Iterator
from functools import partial
from math import prod
from pathlib import Path

from torch import Tensor

from apriel_mcore.bridge.layouts import Sizes
from apriel_mcore.bridge.plan import make_plan
from apriel_mcore.bridge.shape import ModelShape
from apriel_mcore.bridge.tensorfile import Dtype
from apriel_mcore.config.schema import Parallel
from apriel_mcore.convert import companions, parity
from apriel_mcore.convert.boxes import cut_out
from apriel_mcore.convert.checkpoint_reader import CheckpointReader
from apriel_mcore.convert.checkpoint_writer import CheckpointFile, CheckpointWriter, MakeBox, storage_of
from apriel_mcore.convert.hf_folder import HfFolder
from apriel_mcore.convert.journal import Finished, Place
from apriel_mcore.convert.ledger import Ledger
from apriel_mcore.convert.parameters import Cut, Parameter, model_parameters
from apriel_mcore.convert.report import Job, Parity, Report
from apriel_mcore.convert.results import CheckpointResult, digests_in, read_back, still_has
from apriel_mcore.convert.scratch import TORCH_DTYPES, Scratch
from apriel_mcore.convert.workers import Workers
from apriel_mcore.convert.workplace import Workplace, check_room, finished_report, workplace
from apriel_mcore.errors import ConfigError, InputError


def convert(source: Path, target: Path, *, parallel: Parallel, dtype: Dtype | None, probe: bool) -> Report:
    """Write `target`, or go on where an interrupted call stopped; the report that lies in it.

    dtype: of the checkpoint; None keeps the folder's. InputError for every defect of the source, by name,
    with nothing left behind.
    """
    folder = HfFolder.open(source)
    _check_layout(folder, parallel)
    kept = dtype or _trainable(folder)
    options = {
        "dtype": kept,
        "tp": str(parallel.tensor),
        "pp": str(parallel.pipeline),
        "vpp": str(parallel.virtual_pipeline),
        **companions.described(source),
    }
    job = Job.of("hf-to-mcore", source, fingerprint=folder.fingerprint, options=options)

    def compare(checkpoint: Path) -> Parity:
        return parity.check(checkpoint, source, num_elements=folder.num_elements, wanted=probe)

    finished = CheckpointResult(target, folder.shape)
    done = finished_report(
        finished, job, source=partial(digests_in, folder.tensors), compare=partial(compare, target)
    )
    if done is not None:
        return done
    check_room(target, folder.shape.num_parameters * TORCH_DTYPES[kept].itemsize)
    with workplace(target, job) as place:
        files = _plan_files(folder.shape, parallel, kept)
        writer = CheckpointWriter(place.folder, files, checksums=False)  # the report has digests
        workers = Workers(lambda: _Worker(folder, place, writer, kept))
        parts = workers.map(_Worker.finish, files, holds=lambda file: _largest(file, folder))
        writer.finish(record for part in parts for record in part.places)
        companions.copy_all(source, place.folder / companions.CARRIED)
        found = compare(place.folder)
        result = CheckpointResult(place.folder, folder.shape)
        return place.write_report(result, parts, parity=found, dropped=folder.dropped)


class _Worker:
    """Writes one file of the checkpoint at a time, with memory of its own."""

    def __init__(self, folder: HfFolder, place: Workplace, writer: CheckpointWriter, dtype: Dtype) -> None:
        self._folder = folder
        self._place = place
        self._writer = writer
        self._dtype: Dtype = dtype
        # Writing a file and reading it back take turns in the same memory: whoever casts needs both, others
        # the larger one alone.
        self._stored, self._apart = Scratch(), Scratch()
        self._boxes = _BoxMaker(folder, dtype, cast=self._apart, box=self._stored)

    def finish(self, file: CheckpointFile) -> Finished:
        """The file, written and read back, or found so."""
        journal = self._place.journal
        return journal.part(file.name, partial(self._is_intact, file), partial(self._write, file))

    def _is_intact(self, file: CheckpointFile, part: Finished) -> bool:
        """What the journal promises is what the file holds, and what the source still does."""
        now = {record.name: self._folder.tensors[record.name].digest() for record in part.tensors}
        if not still_has(now, part.tensors):
            return False
        wanted = {record.name: record.digest_after for record in part.tensors}
        try:
            found = {name: kept for name, _, kept in self._read_back(file, part.places)}
        except InputError:
            return False
        return found == wanted

    def _write(self, file: CheckpointFile) -> Finished:
        where = str(self._folder.path)
        ledger = Ledger(file.name, self._dtype, self._folder.recorded, where=where)
        places = self._writer.write(file, self._boxes.of_file(ledger))
        self._boxes.forget()
        ledger.watch({})
        records = tuple(ledger.compare(*found) for found in self._read_back(file, places))
        return Finished(part=file.name, tensors=records, places=places)

    def _read_back(self, file: CheckpointFile, places: tuple[Place, ...]) -> Iterator[tuple[str, Sizes, str]]:
        """Name, sizes and digest of the HF tensors in a written file."""
        storage = storage_of(places)
        reader = CheckpointReader(self._place.folder, self._writer.tensors, storage)
        for parameter in file.parameters:  # nothing of one is held any more when the next one is read
            yield from read_back(reader, (self._stored, self._apart), parameter)


class _BoxMaker:
    """Makes the boxes of a file, reading each parameter's HF tensors once."""

    def __init__(self, folder: HfFolder, dtype: Dtype, *, cast: Scratch, box: Scratch) -> None:
        self._folder = folder
        self._dtype: Dtype = dtype
        self._cast, self._box = cast, box
        self._current: Parameter | None = None
        self._tensors: dict[str, Tensor] = {}

    def of_file(self, ledger: Ledger) -> MakeBox:
        """For one file, whose tensors go through `ledger`."""
        return partial(self._make, ledger)

    def forget(self) -> None:
        """Let go of the tensors of a file that is written."""
        self._current = None
        self._tensors = {}

    def _make(self, ledger: Ledger, parameter: Parameter, cut: Cut) -> Tensor:
        """The box's elements, valid until the next call."""
        if parameter is not self._current:
            self._current = parameter
            self._take(ledger, parameter)
        return cut_out(cut, self._tensors, self._box)

    def _take(self, ledger: Ledger, parameter: Parameter) -> None:
        """The parameter's HF tensors from the folder, in the checkpoint's dtype."""
        ledger.watch({name: prod(sizes) for name, sizes in parameter.hf_sizes.items()})
        self._tensors = {}
        cast = self._cast.tensors(parameter.hf_sizes, self._dtype)  # takes no memory until it is filled
        for name in parameter.hf_sizes:
            self._tensors[name] = ledger.see(name, self._folder.read(name), cast_into=cast[name])


def _check_layout(folder: HfFolder, parallel: Parallel) -> None:
    try:
        folder.shape.check_layout(parallel)
    except ConfigError as error:
        raise ConfigError(f"--tp, --pp, --vpp do not fit {folder.path}: {error}") from None


def _largest(file: CheckpointFile, folder: HfFolder) -> int:
    """Bytes of the file's largest parameter, read or written: a worker holds one at a time."""
    return max(
        max(
            sum(folder.tensors[name].stored.num_bytes for name in parameter.hf),
            parameter.num_elements * TORCH_DTYPES[file.dtype].itemsize,
        )
        for parameter in file.parameters
    )


def _trainable(folder: HfFolder) -> Dtype:
    """The folder's dtype; the trainer knows two."""
    dtype = folder.dtype()
    if dtype == "float16":
        raise InputError(
            f"{folder.path}: float16 weights; choose --dtype bf16 (rounds) or --dtype fp32 (exact)"
        )
    return dtype


def _plan_files(shape: ModelShape, parallel: Parallel, dtype: Dtype) -> list[CheckpointFile]:
    """Embedding, each layer, final norm with head: named by pipeline stage and place in the model."""
    stage_of = {
        layer: stage
        for stage, chunks in enumerate(make_plan(shape, parallel, "te").chunks)
        for chunk in chunks
        for layer in range(chunk.layer_offset, chunk.layer_offset + chunk.num_layers)
    }
    parts: dict[str, list[Parameter]] = {}
    for parameter in model_parameters(shape):
        if parameter.layer is not None:
            part = f"{stage_of[parameter.layer]}_{parameter.layer + 1:05}"
        elif parameter.key.startswith("embedding."):
            part = "0_00000"
        else:
            part = f"{parallel.pipeline - 1}_{shape.num_layers + 1:05}"
        parts.setdefault(part, []).append(parameter)
    return [CheckpointFile(part, held, parallel.tensor, dtype) for part, held in parts.items()]
