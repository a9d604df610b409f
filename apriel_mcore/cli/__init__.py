"""`apriel`: parses, then opens the one door that was asked for. Nothing heavy is imported before that.

Each file adds the commands of one subject and holds their doors.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from importlib.util import find_spec

from apriel_mcore.cli import (
    arguments,
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
from apriel_mcore.errors import AprielError, InputError

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
    words = sys.argv[1:] if argv is None else argv
    args, args.rest = parser().parse_known_args(words)
    try:
        if not args.reads_rest:
            arguments.place(args.rest, args, command=words[0])
        args.door(args)
    except AprielError as error:
        print(f"apriel: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except ModuleNotFoundError as missing:
        if find_spec("torch"):  # then it is no login node's environment that lacks the module
            raise
        print(f"apriel: {_not_here(missing, words)}", file=sys.stderr)
        sys.exit(InputError.exit_code)
    except KeyboardInterrupt:
        sys.exit(1)


def _not_here(missing: ModuleNotFoundError, words: Sequence[str]) -> str:
    return (
        f"`apriel {words[0]}` needs {missing.name}, which {sys.prefix} does not have: that environment is a "
        f"login node's, to check recipes and launch them. Run `.venv/bin/apriel {shlex.join(words)}` (`make "
        "quickstart` and `make test` create .venv), or `apriel launch RECIPE --cluster FILE` for a job"
    )


def parser() -> argparse.ArgumentParser:
    """Every command and its flags."""
    root = argparse.ArgumentParser(prog="apriel", description="RL post-training on Megatron-Core and vLLM.")
    root.set_defaults(reads_rest=False)
    commands = root.add_subparsers(required=True, metavar="COMMAND")
    for subject in SUBJECTS:
        subject.add(commands)
    return root
