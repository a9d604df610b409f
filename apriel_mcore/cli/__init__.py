"""`apriel`: parses, then opens the one door that was asked for. Nothing heavy is imported before that.

Each file adds the commands of one subject and holds their doors.
"""

import argparse
import sys
from collections.abc import Sequence

from apriel_mcore.cli import (
    bench,
    cluster,
    convert,
    data,
    evaluation,
    planning,
    pool,
    recipes,
    serving,
    training,
    views,
)
from apriel_mcore.errors import AprielError

SUBJECTS = (
    training,
    cluster,
    pool,
    recipes,
    data,
    serving,
    evaluation,
    views,
    convert,
    planning,
    bench,
)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; exits with the code that the error tree assigns."""
    args, rest = parser().parse_known_args(argv)
    if rest and not args.reads_rest:
        parser().error(f"unrecognized arguments: {' '.join(rest)}")
    args.rest = rest
    try:
        args.door(args)
    except AprielError as error:
        print(f"apriel: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(1)


def parser() -> argparse.ArgumentParser:
    """Every command and its flags."""
    root = argparse.ArgumentParser(prog="apriel", description="RL post-training on Megatron-Core and vLLM.")
    root.set_defaults(reads_rest=False)
    commands = root.add_subparsers(required=True, metavar="COMMAND")
    for subject in SUBJECTS:
        subject.add(commands)
    return root
