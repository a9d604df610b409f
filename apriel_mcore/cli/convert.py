"""`apriel convert`: model folder to Megatron checkpoint and back, proven."""

import argparse
from pathlib import Path

from apriel_mcore.cli.arguments import Commands


def add(commands: Commands) -> None:
    """Add `convert hf-to-mcore`, `mcore-to-hf`, `with-images` and `average`."""
    convert = commands.add_parser("convert", help="model folder to Megatron checkpoint and back, proven")
    directions = convert.add_subparsers(required=True, metavar="DIRECTION")
    _to_mcore_command(directions)
    _to_hf_command(directions)
    _with_images_command(directions)
    _average_command(directions)


def _to_mcore_command(directions: Commands) -> None:
    command = _conversion_command(directions, "hf-to-mcore", "Hugging Face folder to Megatron checkpoint")
    for flag, what in (("--tp", "tensor"), ("--pp", "pipeline"), ("--vpp", "virtual pipeline")):
        text = f"{what} ranks whose shards are written; any layout can load them (default: 1)"
        command.add_argument(flag, type=int, default=1, help=text)
    command.set_defaults(door=_hf_to_mcore)


def _to_hf_command(directions: Commands) -> None:
    command = _conversion_command(directions, "mcore-to-hf", "Megatron checkpoint to Hugging Face folder")
    _folder_arguments(command)
    command.set_defaults(door=_mcore_to_hf)


def _average_command(directions: Commands) -> None:
    command = directions.add_parser("average", help="the mean of checkpoints, as a Hugging Face folder")
    command.add_argument("sources", type=Path, nargs="+", metavar="SRC", help="checkpoints of one training")
    command.add_argument("target", type=Path, metavar="DST", help="must not exist; an unfinished one goes on")
    command.add_argument("--dtype", choices=("bf16", "fp32"), help="default: that of the first SRC")
    _folder_arguments(command)
    command.set_defaults(door=_average)


def _folder_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("--like", type=Path, metavar="FOLDER", help="its model, where SRC does not say")
    command.add_argument("--shard-gb", type=float, default=5.0, help="largest weight file (default: 5)")


def _with_images_command(directions: Commands) -> None:
    command = directions.add_parser("with-images", help="a decoder's folder into the multimodal one it is of")
    command.add_argument("decoder", type=Path, metavar="DECODER", help="what mcore-to-hf wrote")
    command.add_argument("like", type=Path, metavar="LIKE", help="published folder with the vision tower")
    command.add_argument("target", type=Path, metavar="DST", help="must not exist; an unfinished one goes on")
    command.set_defaults(door=_with_images)


def _conversion_command(directions: Commands, name: str, summary: str) -> argparse.ArgumentParser:
    command = directions.add_parser(name, help=summary)
    command.add_argument("source", type=Path, metavar="SRC")
    command.add_argument("target", type=Path, metavar="DST", help="must not exist; an unfinished one goes on")
    command.add_argument("--dtype", choices=("bf16", "fp32"), help="default: that of SRC")
    command.add_argument("--no-probe", action="store_true", help="leave out the parity check of log-probs")
    return command


def _hf_to_mcore(args: argparse.Namespace) -> None:
    from apriel_mcore.convert import door

    door.hf_to_mcore(args)


def _mcore_to_hf(args: argparse.Namespace) -> None:
    from apriel_mcore.convert import door

    door.mcore_to_hf(args)


def _with_images(args: argparse.Namespace) -> None:
    from apriel_mcore.convert import door

    door.whole(args)


def _average(args: argparse.Namespace) -> None:
    from apriel_mcore.convert import door

    door.average_checkpoints(args)
