"""Tables on standard output: whole in a file or a pipe; a narrow terminal folds words, never numbers."""

import sys

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

_FILE_WIDTH = 1000
"""Of files and pipes, which have no width of their own: more than any table takes."""


def add_columns(table: Table, *names: str, words: int = 1) -> None:
    """Columns of numbers, which stand to the right, behind `words` columns of words."""
    for place, name in enumerate(names):
        table.add_column(name, justify="left" if place < words else "right")


def show(table: Table) -> None:
    """Print a table, as wide as its numbers need."""
    for column in table.columns:
        if column.justify == "right":
            column.header = "\n".join(str(column.header).split())
            lines = [line for cell in (column.header, *column.cells) for line in str(cell).splitlines()]
            column.min_width = max(map(cell_len, lines))
            column.no_wrap = True
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _FILE_WIDTH)
    least = console.measure(table, options=console.options.update(width=_FILE_WIDTH)).minimum
    console.width = max(console.width, least)
    console.print(table)
