"""`apriel convert`: from flags to one of the two directions, and a few lines about the result."""

import argparse
from pathlib import Path

import torch
from rich.console import Console

from apriel_mcore.bridge.tensorfile import Dtype
from apriel_mcore.config.schema import Parallel
from apriel_mcore.convert import average, report, to_hf, to_mcore, with_images
from apriel_mcore.convert.report import Report
from apriel_mcore.errors import ConfigError, InputError

_DTYPES: dict[str, Dtype] = {"bf16": "bfloat16", "fp32": "float32"}
_GB = 1e9


def hf_to_mcore(args: argparse.Namespace) -> None:
    """`apriel convert hf-to-mcore`."""
    torch.set_num_threads(1)
    made = to_mcore.convert(
        args.source,
        args.target,
        parallel=_parallel(args.tp, args.pp, args.vpp),
        dtype=_DTYPES.get(args.dtype),
        probe=not args.no_probe,
    )
    _show(made, args.target)


def mcore_to_hf(args: argparse.Namespace) -> None:
    """`apriel convert mcore-to-hf`."""
    torch.set_num_threads(1)
    made = to_hf.convert(
        args.source,
        args.target,
        like=args.like,
        dtype=_DTYPES.get(args.dtype),
        max_file_bytes=_file_bytes(args.shard_gb),
        probe=not args.no_probe,
    )
    _show(made, args.target)


def whole(args: argparse.Namespace) -> None:
    """`apriel convert with-images`."""
    torch.set_num_threads(1)
    _show(with_images.convert(args.decoder, args.like, args.target), args.target)


def average_checkpoints(args: argparse.Namespace) -> None:
    """`apriel convert average`."""
    torch.set_num_threads(1)
    made = average.convert(
        args.sources,
        args.target,
        like=args.like,
        dtype=_DTYPES.get(args.dtype),
        max_file_bytes=_file_bytes(args.shard_gb),
    )
    _show(made, args.target)


def _file_bytes(shard_gb: float) -> int:
    if not shard_gb > 0:
        raise InputError(f"--shard-gb {shard_gb}: give a size above 0")
    return int(shard_gb * _GB)


def _parallel(tensor: int, pipeline: int, virtual_pipeline: int) -> Parallel:
    if min(tensor, pipeline, virtual_pipeline) < 1:
        raise ConfigError(f"--tp {tensor} --pp {pipeline} --vpp {virtual_pipeline}: each must be 1 or more")
    try:
        return Parallel(tensor=tensor, pipeline=pipeline, virtual_pipeline=virtual_pipeline)
    except ValueError as error:
        raise ConfigError(f"--tp {tensor} --pp {pipeline} --vpp {virtual_pipeline}: {error}") from None


def _show(made: Report, target: Path) -> None:
    parity = f"largest log-prob difference {made.parity.max_abs_diff:.1e} nats"
    if made.parity.status == "skipped":
        parity = f"log-probs not compared: {made.parity.reason}"
    console = Console(soft_wrap=True, highlight=False)
    console.print(
        f"{target}: {made.num_tensors} tensors, {made.num_bytes / _GB:.2f} GB, "
        + ("was finished before; read back again" if made.found_finished else _effort(made))
    )
    if made.parts_taken_over and not made.found_finished:
        console.print(f"{made.parts_taken_over} files of an interrupted call were checked and kept")
    if made.dropped:
        console.print(f"{len(made.dropped)} tensors of other modalities were left behind")
    console.print(f"{parity}; details in {target / report.REPORT_FILE}")


def _effort(made: Report) -> str:
    return f"every one read back; {made.seconds:.1f} s, peak memory {made.peak_rss_bytes / _GB:.2f} GB"
