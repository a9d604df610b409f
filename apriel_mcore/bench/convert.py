"""How long does it take to convert a model to a Megatron checkpoint and back, against copying its files?

    Hugging Face folder --to_mcore--> checkpoint --to_hf--> folder     seconds = to_mcore_s + to_hf_s
    cp of that folder               + cp of that checkpoint            unsynced_copy_seconds
    ... and sync of the copies, as conversions sync their files        copy_seconds

The model is random and made tensor by tensor, as it is converted. All of it happens in turn in every
round, on one file system, over nothing: what was written is removed in between, which does not count.
Seconds are medians over the rounds, ratios medians of the rounds' own. The folder that comes back is
compared with the first one, digest by digest. Conversions read back everything they wrote; cp does not.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from apriel_mcore.bench.door import Numbers
from apriel_mcore.bench.rounds import interleave, ratio
from apriel_mcore.bench.shapes import SHAPES, hf_settings
from apriel_mcore.bridge.shape import ModelShape
from apriel_mcore.config.schema import Parallel
from apriel_mcore.convert import report, to_hf, to_mcore
from apriel_mcore.convert.hf_writer import growing, plan_files, write_index
from apriel_mcore.convert.parameters import model_parameters
from apriel_mcore.convert.scratch import Scratch, bytes_of

FILE_BYTES = 5_000_000_000
_BLOCK = 1 << 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Shape, layout, rounds and place."""
    parser.add_argument("--shape", choices=SHAPES, default="1b")
    parser.add_argument("--tp", type=int, default=2)
    parser.add_argument("--pp", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds; figures are medians")
    parser.add_argument(
        "--directory", type=Path, help="on the disk to measure (default: for temporary files)"
    )


def run(args: argparse.Namespace) -> Numbers:
    """Seconds of both conversions and of cp, their ratio, and the peak memory of the process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    shape = SHAPES[args.shape]
    try:
        with tempfile.TemporaryDirectory(prefix="bench-convert-", dir=args.directory) as folder:
            return _measure(
                shape, Path(folder), Parallel(tensor=args.tp, pipeline=args.pp), rounds=args.rounds
            )
    finally:
        torch.set_num_threads(threads)


def _measure(shape: ModelShape, root: Path, parallel: Parallel, *, rounds: int) -> Numbers:
    model, checkpoint, back = root / "model", root / "checkpoint", root / "back"
    copy = root / "copy"
    make_model(model, shape)

    def to_checkpoint() -> None:
        to_mcore.convert(model, checkpoint, parallel=parallel, dtype=None, probe=False)

    def to_folder() -> None:
        to_hf.convert(checkpoint, back, like=None, dtype=None, max_file_bytes=FILE_BYTES, probe=False)

    ways: dict[str, Callable[[], object]] = {
        "remove_converted": lambda: [shutil.rmtree(made, ignore_errors=True) for made in (checkpoint, back)],
        "to_mcore": to_checkpoint,
        "to_hf": to_folder,
        "copy_model": lambda: _copy(model, copy),
        "sync_model": lambda: _sync(copy),
        "remove_model": lambda: shutil.rmtree(copy),
        "copy_checkpoint": lambda: _copy(checkpoint, copy),
        "sync_checkpoint": lambda: _sync(copy),
        "remove_checkpoint": lambda: shutil.rmtree(copy),
    }
    seconds = interleave(ways, rounds)
    there, here = report.read(checkpoint), report.read(back)
    assert there is not None and here is not None, "a conversion leaves its report"
    check_equal(there, here)
    converted = _sum(seconds["to_mcore"], seconds["to_hf"])
    unsynced = _sum(seconds["copy_model"], seconds["copy_checkpoint"])
    copied_model = _sum(seconds["copy_model"], seconds["sync_model"])
    copied_checkpoint = _sum(seconds["copy_checkpoint"], seconds["sync_checkpoint"])
    copied = _sum(copied_model, copied_checkpoint)
    return {
        "ratio_to_copy": ratio(converted, copied),
        "peak_rss_gb": report.peak_rss() / 1e9,
        "seconds": statistics.median(converted),
        "copy_seconds": statistics.median(copied),
        "unsynced_copy_seconds": statistics.median(unsynced),
        "ratio_to_unsynced_copy": ratio(converted, unsynced),
        "to_mcore_seconds": statistics.median(seconds["to_mcore"]),
        "to_hf_seconds": statistics.median(seconds["to_hf"]),
        "to_mcore_ratio_to_copy": ratio(seconds["to_mcore"], copied_model),
        "to_hf_ratio_to_copy": ratio(seconds["to_hf"], copied_checkpoint),
        "gigabytes": 2 * shape.num_parameters / 1e9,
        "rounds": float(rounds),
    }


def make_model(folder: Path, shape: ModelShape) -> None:
    """A Hugging Face folder of a Llama with random bfloat16 weights, never held in memory."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(_config(shape)))
    parameters = model_parameters(shape)
    files = plan_files(parameters, "bfloat16", FILE_BYTES)
    memory = Scratch()
    generator = np.random.Generator(np.random.SFC64(0))

    for file in files:
        with growing(folder, file) as grown:
            for name, sizes in file.tensors.items():
                tensor = memory.tensor(sizes, "bfloat16")
                _fill(tensor, generator)
                grown.put(file.starts[name], tensor)
    write_index(folder, files, "bfloat16")


def _fill(tensor: torch.Tensor, generator: np.random.Generator) -> None:
    """Random signs and mantissas, between 2^-7 and 2^-5: as small as weights are, faster than a normal."""
    words = np.frombuffer(bytes_of(tensor), dtype=np.uint16)
    for start in range(0, words.size, _BLOCK):
        block = words[start : start + _BLOCK]
        block[:] = generator.integers(0, 1 << 16, block.size, dtype=np.uint16)
        block &= 0x80FF
        block |= 0x3C00


def _config(shape: ModelShape) -> dict[str, object]:
    kind = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "bfloat16"}
    return kind | hf_settings(shape)


def _copy(source: Path, target: Path) -> None:
    subprocess.run(["cp", "-r", source, target], check=True)


def _sync(folder: Path) -> None:
    subprocess.run(["sync", *(path for path in folder.rglob("*") if path.is_file())], check=True)


def _sum(one: list[float], other: list[float]) -> list[float]:
    return [a + b for a, b in zip(one, other, strict=True)]


def check_equal(there: report.Report, here: report.Report) -> None:
    """Every tensor came back with the digest it left with."""
    before = {record.name: record.digest_before for record in there.tensors}
    after = {record.name: record.digest_after for record in here.tensors}
    assert before == after, "a tensor changed on its way"
