"""What several commands share: a recipe, and settings that are overridden only as KEY=VALUE."""

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from apriel_mcore.errors import AprielError, InputError

type Commands = "argparse._SubParsersAction[argparse.ArgumentParser]"
type Door = Callable[[argparse.Namespace], None]


def recipe_command(commands: Commands, name: str, summary: str, door: Door) -> argparse.ArgumentParser:
    """Add `NAME RECIPE [KEY=VALUE ...]`, which opens the door."""
    command = commands.add_parser(name, help=summary)
    command.add_argument("recipe", type=Path)
    command.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    command.set_defaults(door=door)
    return command


def place(rest: Sequence[str], args: argparse.Namespace, *, command: str) -> None:
    """KEY=VALUE behind options, which argparse leaves over, joins the others. InputError for other words."""
    is_override = "overrides" in args
    for word in rest:
        if word.startswith("-") or not is_override:
            raise InputError(f"{word}: `apriel {command}` has no such option; see `apriel {command} --help`")
        args.overrides.append(word)


@contextmanager
def naming(recipe: Path) -> Iterator[None]:
    """What is wrong with a recipe that was read begins with its file, as what is wrong with its text does."""
    try:
        yield
    except AprielError as error:  # one of a trainer rank has the exit code alone
        if error.exit_code != InputError.exit_code:
            raise
        raise InputError(f"{recipe}: {error}") from None
