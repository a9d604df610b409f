"""`apriel eval`: how good is a checkpoint?"""

import argparse
from pathlib import Path

from apriel_mcore.cli.arguments import Commands, recipe_command


def add(commands: Commands) -> None:
    """Add `eval`."""
    evaluate = recipe_command(commands, "eval", "held-out accuracy and tokens of a checkpoint", _eval)
    evaluate.add_argument("--checkpoint", type=Path, required=True, help="a folder under checkpoints/")


def _eval(args: argparse.Namespace) -> None:
    from apriel_mcore import eval_checkpoint
    from apriel_mcore.config.load import load

    eval_checkpoint.run(load(args.recipe, args.overrides), args.checkpoint)
