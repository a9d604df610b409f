"""Grids of numbers: what is given stays, and every rule of the puzzle holds."""

import math
import re

import msgspec

from apriel_mcore.verify.puzzles.reading import Grid, Unreadable, grid, integer, is_shaped, rows

Cell = int | str
_BLANKS = ("0", "X", "x", "")


class Sudoku(msgspec.Struct, frozen=True):
    """Nine by nine; 0 or X where nothing is given."""

    original_sudoku: list[list[Cell]]


def sudoku(puzzle: Sudoku, answer: str) -> bool:
    """Rows, columns and boxes hold 1 to 9."""
    found = grid(answer)
    if not is_shaped(found, 9, 9) or not _is_latin(found) or not _keeps(found, puzzle.original_sudoku):
        return False
    boxes = [
        {found[row + i][column + j] for i in range(3) for j in range(3)}
        for row in (0, 3, 6)
        for column in (0, 3, 6)
    ]
    return all(len(box) == 9 for box in boxes)


class Futoshiki(msgspec.Struct, frozen=True):
    """Given numbers stand in the question only, in the lines below "Current puzzle:"."""

    question: str
    grid_size: int
    prefilled_coords: list[tuple[int, int]]
    constraints: list[tuple[tuple[int, int], tuple[int, int], str]]


def futoshiki(puzzle: Futoshiki, answer: str) -> bool:
    """A Latin square with inequalities between cells."""
    found = grid(answer)
    if not is_shaped(found, puzzle.grid_size, puzzle.grid_size) or not _is_latin(found):
        return False
    given = given_numbers(puzzle)
    if any(found[row][column] != number for (row, column), number in given.items()):
        return False
    return all(
        found[a][b] > found[c][d] if sign == ">" else found[a][b] < found[c][d]
        for (a, b), (c, d), sign in puzzle.constraints
    )


def given_numbers(puzzle: Futoshiki) -> dict[tuple[int, int], int]:
    """Number by place; a given place without a number in the question is a broken row: Unreadable."""
    below = puzzle.question.partition("Current puzzle:")[2].splitlines()
    lines = [line.split() for line in below if line.strip()][: puzzle.grid_size]
    try:
        return {(row, column): int(lines[row][column]) for row, column in puzzle.prefilled_coords}
    except (IndexError, ValueError):
        raise Unreadable("the question does not show its given numbers") from None


class Region(msgspec.Struct, frozen=True):
    """Cells as "(row,column)" or [row, column], counted from 1."""

    cells: list[str | tuple[int, int]]
    target: float
    operator: str


class Calcudoku(msgspec.Struct, frozen=True):
    """Regions whose numbers make a target."""

    grid_size: int
    regions: list[Region]


def calcudoku(puzzle: Calcudoku, answer: str) -> bool:
    """A Latin square whose regions make their targets; no number twice in a region."""
    found = grid(answer)
    if not is_shaped(found, puzzle.grid_size, puzzle.grid_size) or not _is_latin(found):
        return False
    return all(_makes_target(region, found) for region in puzzle.regions)


def _makes_target(region: Region, found: Grid) -> bool:
    numbers = sorted(found[row - 1][column - 1] for row, column in map(_place, region.cells))
    if len(set(numbers)) != len(numbers):
        return False
    if region.operator == "+":
        return sum(numbers) == region.target
    if region.operator == "*":
        return math.prod(numbers) == region.target
    if len(numbers) != 2:
        return False
    small, large = numbers
    return large - small == region.target if region.operator == "-" else large == small * region.target


def _place(cell: str | tuple[int, int]) -> tuple[int, int]:
    if isinstance(cell, tuple):
        return cell
    row, column = re.findall(r"\d+", cell)
    return int(row), int(column)


class Skyscrapers(msgspec.Struct, frozen=True):
    """How many buildings are seen from each side; rows and columns in reading order."""

    n: int
    top: list[int]
    bottom: list[int]
    left: list[int]
    right: list[int]


def skyscrapers(puzzle: Skyscrapers, answer: str) -> bool:
    """A Latin square of heights; higher buildings hide lower ones."""
    found = grid(answer)
    if not is_shaped(found, puzzle.n, puzzle.n) or not _is_latin(found):
        return False
    columns = [list(column) for column in zip(*found, strict=True)]
    return (
        [_seen(column) for column in columns] == puzzle.top
        and [_seen(column[::-1]) for column in columns] == puzzle.bottom
        and [_seen(row) for row in found] == puzzle.left
        and [_seen(row[::-1]) for row in found] == puzzle.right
    )


def _seen(heights: list[int]) -> int:
    highest = 0
    count = 0
    for height in heights:
        count += height > highest
        highest = max(highest, height)
    return count


class Survo(msgspec.Struct, frozen=True):
    """0 where a candidate goes; the last row and column are sums."""

    original_matrix: Grid
    candidate_numbers: list[int]
    n: int


def survo(puzzle: Survo, answer: str) -> bool:
    """Each candidate used once; rows and columns add up."""
    found = grid(answer)
    if not is_shaped(found, puzzle.n, puzzle.n) or not _keeps(found, puzzle.original_matrix):
        return False
    filled = [
        number
        for row, given in zip(found, puzzle.original_matrix, strict=True)
        for number, old in zip(row, given, strict=True)
        if old == 0
    ]
    columns = list(zip(*found, strict=True))
    lines = [*found[:-1], *columns[:-1]]
    return sorted(filled) == sorted(puzzle.candidate_numbers) and all(
        sum(line[:-1]) == line[-1] for line in lines
    )


class Numbrix(msgspec.Struct, frozen=True):
    """X where nothing is given."""

    grid: list[list[Cell]]


def numbrix(puzzle: Numbrix, answer: str) -> bool:
    """1 to n*n, each next to its follower."""
    found = grid(answer)
    size = len(puzzle.grid)
    if not is_shaped(found, size, size) or not _keeps(found, puzzle.grid):
        return False
    places = {number: (i, j) for i, row in enumerate(found) for j, number in enumerate(row)}
    if places.keys() != set(range(1, size * size + 1)):
        return False
    return all(
        abs(places[n][0] - places[n + 1][0]) + abs(places[n][1] - places[n + 1][1]) == 1
        for n in range(1, size * size)
    )


class Kakurasu(msgspec.Struct, frozen=True):
    """A marked cell counts its column number in its row, and its row number in its column."""

    row_sums: list[int]
    col_sums: list[int]
    n: int
    m: int


def kakurasu(puzzle: Kakurasu, answer: str) -> bool:
    """Cells 1 or X whose weights make the sums."""
    found = rows(answer)
    if not is_shaped(found, puzzle.n, puzzle.m) or not {cell for row in found for cell in row} <= {"1", "X"}:
        return False
    columns = [list(column) for column in zip(*found, strict=True)]
    return [_weight(row) for row in found] == puzzle.row_sums and [
        _weight(column) for column in columns
    ] == puzzle.col_sums


def _weight(cells: list[str]) -> int:
    return sum(place for place, cell in enumerate(cells, start=1) if cell == "1")


def _is_latin(found: Grid) -> bool:
    """Rows and columns hold 1 to n."""
    wanted = set(range(1, len(found) + 1))
    return all(set(line) == wanted for line in [*found, *zip(*found, strict=True)])


def _keeps(found: Grid, given: list[list[Cell]] | Grid) -> bool:
    """What is given stands where it stood; both of one shape, else not."""
    if [len(row) for row in found] != [len(row) for row in given]:
        return False
    return all(
        str(old) in _BLANKS or integer(str(old)) == new
        for row, given_row in zip(found, given, strict=True)
        for new, old in zip(row, given_row, strict=True)
    )
