"""The mean of several checkpoints becomes a Hugging Face folder, one parameter in memory at a time.

    checkpoint 1 --read--> float32 --+
    checkpoint 2 --read--> float32 --+--> sum / n --take apart, cast, write, read back (to_hf.py)--> folder

Weights of one run's late checkpoints, averaged, often do better than each of them (Izmailov et al., arXiv
1803.05407; "Model soups", Wortsman et al., arXiv 2203.05482). They must come from one training: the mean of
two unrelated models is noise. Measure the result like any other folder.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from apriel_mcore.bridge import shape as model_shape
from apriel_mcore.bridge.tensorfile import Dtype
from apriel_mcore.convert import companions, report, results
from apriel_mcore.convert.boxes import take_apart
from apriel_mcore.convert.checkpoint_reader import CheckpointReader
from apriel_mcore.convert.digest import digest
from apriel_mcore.convert.parameters import Parameter, model_parameters
from apriel_mcore.convert.report import Parity, Report
from apriel_mcore.convert.scratch import DTYPES, Scratch
from apriel_mcore.convert.to_hf import Source, Target, write_folder
from apriel_mcore.errors import InputError


class AverageReader:
    """to_hf.py's Reads over several checkpoints: their mean, in float32."""

    def __init__(self, sources: Sequence[Path]) -> None:
        self._sources = sources
        self._readers = [CheckpointReader.open(source) for source in sources]
        reports = [report.read(source) for source in sources]
        self._recorded = [earlier.digests if earlier else {} for earlier in reports]

    def check_fits(self, parameters: Sequence[Parameter]) -> None:
        """InputError naming what does not fit in one of them."""
        for reader in self._readers:
            reader.check_fits(parameters)

    def dtype(self) -> Dtype:
        """The mean is kept in float32 until it is written."""
        return "float32"

    def fingerprint(self) -> str:
        """Of all of them; their order does not matter."""
        return hashlib.sha256(
            " ".join(sorted(one.fingerprint() for one in self._readers)).encode()
        ).hexdigest()

    def first_dtype(self) -> Dtype:
        """Of the first checkpoint."""
        return self._readers[0].dtype()

    def check_manifest(self) -> None:
        """Of all of them."""
        for reader in self._readers:
            reader.check_manifest()

    def read(self, parameter: Parameter, memory: Scratch, *, verify: bool) -> Tensor:
        """One whole parameter of one layer, averaged in float32; each source's is compared with what that
        one's own conversion recorded, or else with its checksums."""
        total = memory.tensor(parameter.whole.sizes, "float32").zero_()
        for source, reader, recorded in zip(self._sources, self._readers, self._recorded, strict=True):
            known = parameter.hf_sizes.keys() <= recorded.keys()
            one = reader.read(parameter, Scratch(), verify=verify and not known)
            for name, tensor in take_apart(parameter, one, Scratch()).items() if known else ():
                if recorded[name] != (DTYPES[tensor.dtype], digest(tensor)):
                    raise InputError(f"{source}: {name} is not what its conversion.json says")
            total.add_(one)
        return total.div_(len(self._readers))


def convert(
    sources: Sequence[Path], target: Path, *, like: Path | None, dtype: Dtype | None, max_file_bytes: int
) -> Report:
    """Write `target`, or go on where an interrupted call stopped; the report that lies in it.

    dtype: of the folder; None keeps the first checkpoint's. InputError where the checkpoints are not of one
    model shape, naming the one that differs.
    """
    if len({source.resolve() for source in sources}) < max(2, len(sources)):
        raise InputError("give two checkpoints or more, each once: SRC SRC ... DST")
    for number, source in enumerate(sources):
        earlier = report.read(source)
        if earlier is not None:
            results.check_carried(source, earlier, model=like is None and number == 0)
    average = AverageReader(sources)
    model = companions.model_of(sources[0], like)
    average.check_fits(model_parameters(model_shape.read(model)))
    return write_folder(
        Source(
            reader=average,
            direction="average",
            name=" ".join(map(str, sources)),
            model=model,
            recorded={},
        ),
        Target(folder=target, dtype=dtype or average.first_dtype(), max_file_bytes=max_file_bytes),
        compare=lambda folder, size: Parity(status="skipped", reason="no checkpoint holds the average"),
    )
