"""`apriel fetch`, `check`, `show` and `diff`: everything about a recipe before it runs."""

import argparse
from pathlib import Path

from apriel_mcore.cli.arguments import Commands, naming, recipe_command
from apriel_mcore.rundir import RunDir


def add(commands: Commands) -> None:
    """Add `fetch`, `check`, `show` and `diff`."""
    recipe_command(commands, "fetch", "bring model and data into the cache, verified by digest", _fetch)
    check = recipe_command(
        commands, "check", "resolve and validate a recipe without starting anything", _check
    )
    check.add_argument(
        "--sizes-only", action="store_true", help="what config.json tells; no weights or data needed"
    )
    recipe_command(commands, "show", "print the resolved recipe", _show)
    differ = commands.add_parser("diff", help="print the leaves in which two recipes differ")
    differ.add_argument("a", type=Path)
    differ.add_argument("b", type=Path)
    differ.set_defaults(door=_diff)


def _fetch(args: argparse.Namespace) -> None:
    from apriel_mcore.config.load import load
    from apriel_mcore.data.fetch import fetch

    fetch(load(args.recipe, args.overrides))


def _check(args: argparse.Namespace) -> None:
    from apriel_mcore import preflight
    from apriel_mcore.config.load import load

    config = load(args.recipe, args.overrides)
    with naming(args.recipe):
        if args.sizes_only:
            preflight.check_sizes(config, tell=print)
        else:
            preflight.check(config, RunDir(Path("runs") / config.name), tell=print)
            preflight.check_problems(config, tell=print)


def _show(args: argparse.Namespace) -> None:
    from apriel_mcore.config.load import dump, load

    print(dump(load(args.recipe, args.overrides)), end="")


def _diff(args: argparse.Namespace) -> None:
    from apriel_mcore.config.load import diff, load

    for key, (old, new) in diff(load(args.a), load(args.b)).items():
        print(f"{key}: {old!r} -> {new!r}")
