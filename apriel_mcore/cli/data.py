"""`apriel data`: look at a recipe's problems and replay their gold answers."""

import argparse
from pathlib import Path

from apriel_mcore.cli.arguments import Commands, recipe_command


def add(commands: Commands) -> None:
    """Add `data stats`, `data sample` and `data verify`."""
    data = commands.add_parser("data", help="look at a recipe's problems, and replay their gold answers")
    views = data.add_subparsers(required=True, metavar="VIEW")
    recipe_command(views, "stats", "counts, lengths, rejects and overlaps", _data_stats)
    sample = recipe_command(views, "sample", "print rendered problems with their gold", _data_sample)
    sample.add_argument("--domain", help="default: every domain")
    sample.add_argument("--num", type=int, default=3, help="problems a domain (default: 3)")
    verify = recipe_command(views, "verify", "gold answers through the verifiers", _data_verify)
    verify.add_argument("--wrong", type=int, default=0, metavar="N", help="also N changed answers a source")
    verify.add_argument("--json", type=Path, help="also write every failure to this file, one a line")


def _data_stats(args: argparse.Namespace) -> None:
    from apriel_mcore import data_views
    from apriel_mcore.config.load import load

    data_views.stats(load(args.recipe, args.overrides))


def _data_sample(args: argparse.Namespace) -> None:
    from apriel_mcore import data_views
    from apriel_mcore.config.load import load

    data_views.sample(load(args.recipe, args.overrides), domain=args.domain, num=args.num)


def _data_verify(args: argparse.Namespace) -> None:
    from apriel_mcore import gold_replay
    from apriel_mcore.config.load import load

    gold_replay.run(load(args.recipe, args.overrides), num_wrong=args.wrong, failures=args.json)
