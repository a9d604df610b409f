"""Is a conversion's memory that of a few tensors, whatever the model's size? The 15B shape, layer by layer.

    random folder --apriel convert hf-to-mcore--> checkpoint     peak resident memory of the command
    checkpoint    --apriel convert mcore-to-hf--> folder         likewise

The shape is that of Apriel-1.5-15b-Thinker's text decoder, which has 48 layers. Every conversion is a
process of its own, as a user would start it. The first folder goes before the second one comes, so the disk
holds the model twice; digests of both ends are compared through the reports.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
import torch

from apriel_mcore.bench.convert import check_equal, make_model
from apriel_mcore.bench.door import Numbers
from apriel_mcore.bench.shapes import SHAPES
from apriel_mcore.bridge.shape import ModelShape
from apriel_mcore.convert import report
from apriel_mcore.convert.report import Report
from apriel_mcore.errors import InputError

_GIB = 2**30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Sizes, layout and place."""
    parser.add_argument("--layers", type=int, nargs="+", default=[4, 8, 16], help="models, by layers")
    parser.add_argument("--tp", type=int, default=2)
    parser.add_argument("--pp", type=int, default=2)
    parser.add_argument("--directory", type=Path, help="on the disk to use (default: for temporary files)")


def run(args: argparse.Namespace) -> Numbers:
    """Peak memory and seconds of both conversions of the 15B shape, for several numbers of layers."""
    torch.set_num_threads(1)
    numbers: Numbers = {}
    for layers in args.layers:
        shape = msgspec.structs.replace(SHAPES["15b"], num_layers=layers)
        with tempfile.TemporaryDirectory(prefix="bench-convert-", dir=args.directory) as folder:
            _check_room(Path(folder), shape)
            there, back = _convert(shape, Path(folder), ["--tp", str(args.tp), "--pp", str(args.pp)])
        key = f"layers{layers}"
        numbers |= {
            f"{key}.gigabytes": there.num_bytes / 1e9,
            f"{key}.to_mcore_peak_gib": there.peak_rss_bytes / _GIB,
            f"{key}.to_hf_peak_gib": back.peak_rss_bytes / _GIB,
            f"{key}.to_mcore_seconds": there.seconds,
            f"{key}.to_hf_seconds": back.seconds,
        }
    return numbers


def _convert(shape: ModelShape, root: Path, layout: list[str]) -> tuple[Report, Report]:
    """Both conversions' own reports."""
    model, checkpoint, back = root / "model", root / "checkpoint", root / "back"
    make_model(model, shape)
    there = _call("hf-to-mcore", model, checkpoint, layout)
    shutil.rmtree(model)
    here = _call("mcore-to-hf", checkpoint, back, [])
    check_equal(there, here)
    return there, here


def _call(direction: str, source: Path, target: Path, options: list[str]) -> Report:
    command = [sys.executable, "-m", "apriel_mcore.cli", "convert", direction, str(source), str(target)]
    subprocess.run([*command, "--no-probe", *options], check=True, stdout=subprocess.DEVNULL)
    made = report.read(target)
    assert made is not None, "a conversion leaves its report"
    return made


def _check_room(folder: Path, shape: ModelShape) -> None:
    needed, free = 2 * 2 * shape.num_parameters, shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(
            f"--layers {shape.num_layers}: the model twice is {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are "
            f"free in {folder.parent}; give fewer layers or another --directory"
        )
