"""What several commands share: a recipe, and settings that are overridden only as KEY=VALUE."""

import argparse
from collections.abc import Callable
from pathlib import Path

type Commands = "argparse._SubParsersAction[argparse.ArgumentParser]"
type Door = Callable[[argparse.Namespace], None]


def recipe_command(commands: Commands, name: str, summary: str, door: Door) -> argparse.ArgumentParser:
    """Add `NAME RECIPE [KEY=VALUE ...]`, which opens the door."""
    command = commands.add_parser(name, help=summary)
    command.add_argument("recipe", type=Path)
    command.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    command.set_defaults(door=door)
    return command
