"""A Megatron checkpoint, converted or of training, becomes a Hugging Face folder.

    every record of the model's tensors, there and long enough
      --for each file: read a parameter, take it apart, write; read the file back, compare digests-->
    index, config, tokenizer  -->  parity of log-probs  -->  conversion.json, rename

Optimizer state stays behind. The folder holds the text decoder under plain names.
"""

from collections.abc import Iterator
from functools import partial
from math import prod
from pathlib import Path

import msgspec
from torch import Tensor

from apriel_mcore.bridge import shape as model_shape
from apriel_mcore.bridge.receipt import digest
from apriel_mcore.bridge.tensorfile import Dtype
from apriel_mcore.convert import companions, parity, report
from apriel_mcore.convert.boxes import take_apart
from apriel_mcore.convert.checkpoint_reader import CheckpointReader
from apriel_mcore.convert.hf_folder import read_exactly
from apriel_mcore.convert.hf_writer import WeightFile, plan_files, write_file, write_index
from apriel_mcore.convert.journal import Finished
from apriel_mcore.convert.ledger import Ledger
from apriel_mcore.convert.parameters import model_parameters
from apriel_mcore.convert.report import Job, Report
from apriel_mcore.convert.scratch import Scratch, bytes_of
from apriel_mcore.convert.workplace import Workplace, check_room, finished_report, workplace


def convert(
    source: Path, target: Path, *, like: Path | None, dtype: Dtype | None, max_file_bytes: int, probe: bool
) -> Report:
    """Write `target`, or go on where an interrupted call stopped; the report that lies in it.

    like: the model folder the checkpoint came from, where the checkpoint does not say. dtype: of the
    folder; None keeps the checkpoint's. InputError for every defect of the source, by name, with nothing
    left behind.
    """
    reader = CheckpointReader.open(source)
    model = companions.model_of(source, like)
    shape = model_shape.read(model)
    parameters = model_parameters(shape)
    reader.check_fits(parameters)
    kept = dtype or reader.dtype()
    files = plan_files(parameters, kept, max_file_bytes)
    options = {
        "dtype": kept,
        "max_file_bytes": str(max_file_bytes),
        "shape": msgspec.json.encode(shape).decode(),
    }
    job = Job.of("mcore-to-hf", source, fingerprint=reader.fingerprint(), options=options)
    done = finished_report(target, job)
    if done is not None:
        return done
    check_room(target, sum(file.size for file in files))
    with workplace(target, job) as place:
        parts = _Conversion(source, reader, place, kept).run(files)
        write_index(place.folder, files, kept)
        companions.copy_for_decoder(model, place.folder, kept)
        found = parity.check(source, place.folder, num_elements=shape.num_parameters, wanted=probe)
        return place.write_report(parts, parity=found, dropped=())


class _Conversion:
    """The weight files of one folder, one after the other."""

    def __init__(self, source: Path, reader: CheckpointReader, place: Workplace, dtype: Dtype) -> None:
        self._source = source
        self._reader = reader
        self._place = place
        self._dtype: Dtype = dtype
        earlier = report.read(source)
        self._recorded = earlier.digests if earlier else {}
        self._stored, self._apart, self._cast, self._written = Scratch(), Scratch(), Scratch(), Scratch()

    def run(self, files: list[WeightFile]) -> list[Finished]:
        """Every file, written and read back."""
        return [
            self._place.journal.part(file.name, partial(self._is_intact, file), partial(self._write, file))
            for file in files
        ]

    def _is_intact(self, file: WeightFile, part: Finished) -> bool:
        """What the journal promises is what the file holds."""
        path = self._place.folder / file.name
        if not path.is_file() or path.stat().st_size != file.size:
            return False
        with path.open("rb") as stream:
            if stream.read(len(file.opening)) != file.opening:
                return False
        wanted = {record.name: record.digest_after for record in part.tensors}
        return {name: digest(bytes_of(tensor)) for name, tensor in self._read_back(file)} == wanted

    def _write(self, file: WeightFile) -> Finished:
        ledger = Ledger(file.name, self._dtype, self._recorded, where=str(self._source))
        write_file(self._place.folder, file, self._tensors(file, ledger))
        ledger.watch({})
        ledger.watch({})
        records = tuple(ledger.compare(name, tensor) for name, tensor in self._read_back(file))
        return Finished(part=file.name, tensors=records)

    def _tensors(self, file: WeightFile, ledger: Ledger) -> Iterator[tuple[str, Tensor]]:
        """The file's tensors out of the checkpoint, each valid until the next is asked for."""
        dtype = self._reader.dtype()
        for parameter in file.parameters:
            ledger.watch({name: prod(sizes) for name, sizes in parameter.hf_sizes.items()})
            stored = self._stored.tensor(parameter.whole.sizes, dtype)
            self._reader.read(parameter, stored)
            for name, tensor in take_apart(parameter, stored, self._apart).items():
                cast = tensor if dtype == self._dtype else self._cast.tensor(tuple(tensor.shape), self._dtype)
                yield name, ledger.see(name, tensor, cast_into=cast)

    def _read_back(self, file: WeightFile) -> Iterator[tuple[str, Tensor]]:
        """The tensors in a written file, each valid until the next."""
        for name, sizes in file.tensors.items():
            tensor = self._written.tensor(sizes, self._dtype)
            read_exactly(self._place.folder / file.name, file.starts[name], tensor, what=name)
            yield name, tensor
