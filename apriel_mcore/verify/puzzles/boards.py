"""Grids of symbols: what is given stays, and every rule of the puzzle holds."""

import re
from collections import Counter

import msgspec

from apriel_mcore.verify.puzzles.reading import Rows, is_shaped, pairs, rows

type Place = tuple[int, int]
Cell = int | str

_SIDES = ((0, 1), (1, 0), (0, -1), (-1, 0))
_AROUND = (*_SIDES, (1, 1), (1, -1), (-1, 1), (-1, -1))
_ARROWS = {
    "\u2191": (-1, 0),
    "\u2193": (1, 0),
    "\u2190": (0, -1),
    "\u2192": (0, 1),
    "\u2196": (-1, -1),
    "\u2197": (-1, 1),
    "\u2198": (1, 1),
    "\u2199": (1, -1),
}


class ArrowMaze(msgspec.Struct, frozen=True):
    """Numbers, arrows, and X where an arrow goes."""

    maze: Rows


def arrow_maze(puzzle: ArrowMaze, answer: str) -> bool:
    """Each number's rays have so many arrows in all, and each arrow is part of a ray."""
    found = rows(answer)
    if [len(row) for row in found] != [len(row) for row in puzzle.maze]:
        return False
    cells, given = _cells(found), _cells(puzzle.maze)
    if any(new != old if old != "X" else new not in _ARROWS for new, old in _both(cells, given)):
        return False
    covered: set[Place] = set()
    for place, cell in cells.items():
        if cell.isdigit():
            ray = _rays(cells, place)
            if len(ray) != int(cell):
                return False
            covered |= ray
    return covered == {place for place, cell in cells.items() if cell in _ARROWS}


def _rays(cells: dict[Place, str], start: Place) -> set[Place]:
    ray: set[Place] = set()
    for arrow, step in _ARROWS.items():
        place = _moved(start, step)
        while cells.get(place) == arrow:
            ray.add(place)
            place = _moved(place, step)
    return ray


class Campsite(msgspec.Struct, frozen=True):
    """T trees; the numbers of tents in rows and columns."""

    grid: Rows
    row_constraints: list[int]
    col_constraints: list[int]
    n: int
    m: int


def campsite(puzzle: Campsite, answer: str) -> bool:
    """C tents, one beside each tree and no two touching."""
    found = rows(answer)
    if not is_shaped(found, puzzle.n, puzzle.m):
        return False
    cells = _cells(found)
    trees, tents = _places(cells, "T"), _places(cells, "C")
    counts_row, counts_column = Counter(i for i, _ in tents), Counter(j for _, j in tents)
    return (
        trees == _places(_cells(puzzle.grid), "T")
        and [counts_row[i] for i in range(puzzle.n)] == puzzle.row_constraints
        and [counts_column[j] for j in range(puzzle.m)] == puzzle.col_constraints
        and not _touch(tents)
        and len(tents) == len(trees)
        and _can_pair(tents, trees)
    )


def _can_pair(tents: set[Place], trees: set[Place]) -> bool:
    """Whether each tent can have a tree beside it of its own: augmenting paths."""
    owner: dict[Place, Place] = {}

    def finds_tree(tent: Place, tried: set[Place]) -> bool:
        for tree in {_moved(tent, step) for step in _SIDES} & trees - tried:
            tried.add(tree)
            if tree not in owner or finds_tree(owner[tree], tried):
                owner[tree] = tent
                return True
        return False

    return all(finds_tree(tent, set()) for tent in tents)


class Minesweeper(msgspec.Struct, frozen=True):
    """Where the mines are."""

    current_mines: list[Place]


def minesweeper(puzzle: Minesweeper, answer: str) -> bool:
    """All mines and no other place."""
    return set(pairs(answer)) == set(puzzle.current_mines)


class Norinori(msgspec.Struct, frozen=True):
    """Regions by label; X cells are shaded."""

    region_grid: list[list[Cell]]


def norinori(puzzle: Norinori, answer: str) -> bool:
    """Dominoes, no two touching by a side, two cells shaded in every region; places count from 1."""
    found = pairs(answer)
    dominoes = list(zip(found[::2], found[1::2], strict=False))
    size = len(puzzle.region_grid)
    inside = all(1 <= i <= size and 1 <= j <= size for i, j in found)
    if len(found) % 2 or len(set(found)) != len(found) or not inside:
        return False
    domino_at = {place: number for number, domino in enumerate(dominoes) for place in domino}
    for place, number in domino_at.items():
        beside = [domino_at[near] for step in _SIDES if (near := _moved(place, step)) in domino_at]
        if beside != [number]:  # its other half and nothing else
            return False
    regions = {
        (i + 1, j + 1): label for i, row in enumerate(puzzle.region_grid) for j, label in enumerate(row)
    }
    shaded = Counter(regions[place] for place in domino_at)
    given = {place for place, label in regions.items() if label == "X"}
    return given <= domino_at.keys() and all(shaded[label] == 2 for label in set(regions.values()) - {"X"})


class NumberWall(msgspec.Struct, frozen=True):
    """Numbers, and X elsewhere."""

    grid: list[list[Cell]]
    n: int


def number_wall(puzzle: NumberWall, answer: str) -> bool:
    """A walls around islands of X and one number, which is the island's size; walls fill no square."""
    found = rows(answer)
    if not is_shaped(found, puzzle.n, puzzle.n):
        return False
    cells, given = _cells(found), _cells([[str(cell) for cell in row] for row in puzzle.grid])
    if any(new != old if old.isdigit() else new not in ("X", "A") for new, old in _both(cells, given)):
        return False
    islands = _islands(cells)
    for island in islands:
        numbers = [int(cells[place]) for place in island if cells[place].isdigit()]
        if numbers != [len(island)]:
            return False
    island_at = {place: number for number, island in enumerate(islands) for place in island}
    return all(_square_is_legal(i, j, island_at) for i in range(puzzle.n - 1) for j in range(puzzle.n - 1))


def _islands(cells: dict[Place, str]) -> list[set[Place]]:
    left = {place for place, cell in cells.items() if cell != "A"}
    islands: list[set[Place]] = []
    while left:
        edge = [left.pop()]
        island = set(edge)
        while edge:
            near = {_moved(edge[-1], step) for step in _SIDES} & left
            edge.pop()
            left -= near
            island |= near
            edge += near
        islands.append(island)
    return islands


def _square_is_legal(i: int, j: int, island_at: dict[Place, int]) -> bool:
    """Not four walls, and two islands do not meet at a corner."""
    square = [(i, j), (i, j + 1), (i + 1, j), (i + 1, j + 1)]
    on_land = [place for place in square if place in island_at]
    return bool(on_land) and (len(on_land) != 2 or island_at[on_land[0]] == island_at[on_land[1]])


class StarPlacement(msgspec.Struct, frozen=True):
    """Regions by label; k stars in each row, column and region."""

    n: int
    k: int
    region_grid: list[list[Cell]]


def star_placement(puzzle: StarPlacement, answer: str) -> bool:
    """Stars that do not touch, also not at corners; places count from 1."""
    stars = {(i - 1, j - 1) for i, j in pairs(answer)}
    regions = _cells([[str(label) for label in row] for row in puzzle.region_grid])
    if not stars <= regions.keys() or _touch(stars):
        return False
    counts = Counter(
        line for i, j in stars for line in (("row", i), ("column", j), ("region", regions[i, j]))
    )
    lines = {("row", i) for i in range(puzzle.n)} | {("column", i) for i in range(puzzle.n)}
    lines |= {("region", label) for label in regions.values()}
    return counts == dict.fromkeys(lines, puzzle.k)


class Wordscapes(msgspec.Struct, frozen=True):
    """X where a letter goes, 0 elsewhere."""

    grid: list[list[Cell]]
    across_words: list[str]
    down_words: list[str]


def wordscapes(puzzle: Wordscapes, answer: str) -> bool:
    """Letters on X only; every word stands between gaps in a row or column, and every letter is in a word.

    Letters of neighboring words may touch, so a run of letters need not be a word if all of its letters are.
    """
    given = [[str(cell) for cell in row] for row in puzzle.grid]
    found = [["" if cell in ("0", " ") else cell.lower() for cell in row] for row in rows(answer)]
    if not given or not is_shaped(found, len(given), len(given[0])):
        return False
    for row, given_row in zip(found, given, strict=True):
        for cell, old in zip(row, given_row, strict=True):
            if len(cell) != (old != "0") or (cell and not cell.isalpha()):
                return False
    columns = [list(column) for column in zip(*found, strict=True)]
    across, down = _placed(found, puzzle.across_words), _placed(columns, puzzle.down_words)
    if across is None or down is None:
        return False
    letters = {place for place, cell in _cells(found).items() if cell}
    return across | {(i, j) for j, i in down} == letters


def _placed(lines: Rows, words: list[str]) -> set[Place] | None:
    """Places of the words' letters; None unless each word is a run of its own."""
    left = Counter(word.lower() for word in words)
    covered: set[Place] = set()
    for i, line in enumerate(lines):
        for run in re.finditer(r"\S+", "".join(cell or " " for cell in line)):
            if left[run[0]] > 0:
                left[run[0]] -= 1
                covered |= {(i, j) for j in range(*run.span())}
    return covered if left.total() == 0 else None


def _cells(found: Rows) -> dict[Place, str]:
    return {(i, j): cell for i, row in enumerate(found) for j, cell in enumerate(row)}


def _both(cells: dict[Place, str], given: dict[Place, str]) -> list[tuple[str, str]]:
    return [(cells[place], old) for place, old in given.items()]


def _places(cells: dict[Place, str], symbol: str) -> set[Place]:
    return {place for place, cell in cells.items() if cell == symbol}


def _moved(place: Place, step: Place) -> Place:
    return place[0] + step[0], place[1] + step[1]


def _touch(places: set[Place]) -> bool:
    return any(_moved(place, step) in places for place in places for step in _AROUND)
