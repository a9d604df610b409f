"""Grids, graphs and sequences of moves, followed again from the question."""

import json
import re
from collections import Counter, deque
from collections.abc import Callable, Iterator
from graphlib import CycleError, TopologicalSorter
from itertools import count, pairwise, product

from tests.golds.sums import after

type Grid = list[list[str]]
type Cell = tuple[int, int]

AROUND = ((0, 1), (1, 0), (0, -1), (-1, 0))
WAYS = {"right": (0, 1), "down": (1, 0), "left": (0, -1), "up": (-1, 0)}


def rows(text: str) -> Grid:
    return [line.split() for line in text.strip().splitlines()]


def cells(grid: Grid, symbols: str) -> set[Cell]:
    return {(r, c) for r, row in enumerate(grid) for c, symbol in enumerate(row) if symbol in symbols}


def reached(starts: set[Cell], free: set[Cell]) -> dict[Cell, int]:
    """Steps to every cell that can be reached from the starts through free cells."""
    steps = dict.fromkeys(starts, 0)
    queue = deque(starts)
    while queue:
        r, c = queue.popleft()
        for dr, dc in AROUND:
            if (near := (r + dr, c + dc)) in free and near not in steps:
                steps[near] = steps[r, c] + 1
                queue.append(near)
    return steps


def largest_island(question: str, gold: str) -> bool:
    land = cells(rows(question.split("grid:\n")[1].split("\n\n")[0]), "1")
    return max((len(reached({cell}, land)) for cell in land), default=0) == int(gold)


def rotten_oranges(question: str, gold: str) -> bool:
    grid = rows(question.rsplit(":\n", 1)[1])
    fresh = cells(grid, "1")
    steps = reached(cells(grid, "2"), fresh)
    return (max((steps[cell] for cell in fresh), default=0) if fresh <= steps.keys() else -1) == int(gold)


def shortest_path(question: str, gold: str) -> bool:
    grid = rows(question.rsplit(":\n", 1)[1])
    start, goal, free = cells(grid, "*"), cells(grid, "#"), cells(grid, "O#")
    steps = reached(start, free)
    place = next(iter(start))
    if gold == "infeasible":
        return not goal & steps.keys()
    for word in gold.split():
        place = (place[0] + WAYS[word][0], place[1] + WAYS[word][1])
        if place not in free:
            return False
    return {place} == goal and len(gold.split()) == steps[place]


def maze(question: str, gold: str) -> bool:
    start, goal = re.search(r"from '(.)' \(start\) to '(.)' \(goal\)", question).groups()
    free = re.search(r"'(.)' = Passage", question)[1]
    drawn = question.split("```\n", 1)[1].rsplit("\n```\nLegend", 1)[0]  # a wall may be a ` too
    grid = [list(line) for line in drawn.splitlines()]
    steps = reached(cells(grid, start), cells(grid, free + goal))
    return steps[next(iter(cells(grid, goal)))] == int(gold)


def path_star(question: str, gold: str) -> bool:
    edges, ends = after(question, "task:").removesuffix("=").split("/")
    steps = {tuple(edge.split()) for edge in edges.strip("|").split("|")}
    path = gold.split()
    return [path[0], path[-1]] == ends.split() and set(pairwise(path)) <= steps


def course_schedule(question: str, gold: str) -> bool:
    pairs = re.findall(r"\((\d+), (\d+)\)", question.split(":\n")[1])
    before: dict[str, set[str]] = {}
    for course, first in pairs:
        before.setdefault(course, set()).add(first)
    try:
        TopologicalSorter(before).prepare()
    except CycleError:
        return gold == "False"
    return gold == "True"


def game_of_life(question: str, gold: str) -> bool:
    board = json.loads("[[" + question.split("\n\n[[")[1].rstrip(" ."))
    height, width = len(board), len(board[0])
    for _ in range(int(re.search(r"after (\d+) steps", question)[1])):
        near = [
            [
                sum(
                    board[(r + dr) % height][(c + dc) % width]
                    for dr, dc in product((-1, 0, 1), repeat=2)
                    if dr or dc
                )
                for c in range(width)
            ]
            for r in range(height)
        ]
        board = [
            [int(near[r][c] == 3 or (near[r][c] == 2 and board[r][c])) for c in range(width)]
            for r in range(height)
        ]
    return board == json.loads(gold)


def turned(grid: Grid, degrees: int) -> Grid:
    for _ in range(degrees // 90 % 4):
        grid = [list(row) for row in zip(*grid[::-1], strict=True)]
    return grid


def rotate_matrix(question: str, gold: str) -> bool:
    degrees, shown = re.search(r"by (\d+) degrees clockwise:\n(.*)", question, re.DOTALL).groups()
    return turned(rows(shown), int(degrees)) == rows(gold)


def manipulate_matrix(question: str, gold: str) -> bool:
    shown, steps = question.split("matrix:\n")[1].split("\n\nPerform")
    grid = rows(shown)
    for step in re.findall(r"^- (.*)", steps, re.MULTILINE):
        grid = manipulated(grid, step, [int(number) for number in re.findall(r"\d+", step.split("(")[0])])
    return grid == rows(gold)


def manipulated(grid: Grid, step: str, numbers: list[int]) -> Grid:
    match step.split()[0], step:
        case "Rotate", _:
            return turned(grid, numbers[0])
        case "Map", _:
            old, new = map(str, numbers)
            return [[new if n == old else n for n in row] for row in grid]
        case "Horizontally", _:
            return [row[::-1] for row in grid]
        case "Vertically", _:
            return grid[::-1]
        case "Set", _:
            return [["0" if int(n) % numbers[0] == 0 else n for n in row] for row in grid]
        case "Crop", _:
            top, bottom, left, right = numbers
            return [row[left - 1 : right] for row in grid[top - 1 : bottom]]
        case "Remove", _ if "column" in step:
            return [[n for place, n in enumerate(row, 1) if place % numbers[0]] for row in grid]
        case "Remove", _:
            return [row for place, row in enumerate(grid, 1) if place % numbers[0]]
        case "Mirror", _ if "counter" in step:
            return turned([list(row) for row in zip(*grid, strict=True)], 180)
        case "Mirror", _:
            return [list(row) for row in zip(*grid, strict=True)]
        case _:
            return grid


def pool_matrix(question: str, gold: str) -> bool:
    kind, size, shown = re.search(
        r"Perform (\w+) pooling .* size of (\d+):\n(.*)", question, re.DOTALL
    ).groups()
    grid, step = [[int(n) for n in row] for row in rows(shown)], int(size)
    told = [[float(n) for n in row] for row in rows(gold)]
    for r, c in product(range(0, len(grid), step), range(0, len(grid[0]), step)):
        block = [n for row in grid[r : r + step] for n in row[c : c + step]]
        right = max(block) if kind == "max" else sum(block) / len(block)
        if abs(told[r // step][c // step] - right) > 0.0051:
            return False
    return len(told) == -(-len(grid) // step)


def binary_alternation(question: str, gold: str) -> bool:
    bits = after(question, ":")
    found = [
        sum(a != b for a, b in zip(bits, to, strict=True)) // 2
        for to in (("01" * len(bits))[: len(bits)], ("10" * len(bits))[: len(bits)])
        if to.count("1") == bits.count("1")
    ]
    return min(found, default=-1) == int(gold)


def color_cube_rotation(question: str, gold: str) -> bool:
    cube = {side: color for color, side in re.findall(r"- an? (\w+) (\w+) side", question)}
    turns = question.split("\n\n")[1:-1]
    sides = "top|right|front|left|back|bottom"
    for turn in turns:
        brought = re.findall(sides, turn)
        if brought[-1] != "top":
            raise ValueError(turn)
        cube = tipped(cube, brought[0])
    return cube[re.findall(sides, question.split("\n\n")[-1])[0]] == gold


def tipped(cube: dict[str, str], to_top: str) -> dict[str, str]:
    """By the shortest turn that brings a side to the top."""
    rings = {
        "front": ("front", "top", "back", "bottom"),
        "back": ("back", "top", "front", "bottom"),
        "left": ("left", "top", "right", "bottom"),
        "right": ("right", "top", "left", "bottom"),
        "bottom": ("front", "top", "back", "bottom"),
    }
    if to_top == "top":
        return cube
    ring = rings[to_top]
    by = 2 if to_top == "bottom" else 1
    return {**cube, **{ring[(place + by) % 4]: cube[side] for place, side in enumerate(ring)}}


def jugs(question: str, gold: str) -> bool:
    shown, target = re.search(r"water: (.*)\nAnd your target is: (\d+)", question).groups()
    holds = {name: int(size) for name, size in re.findall(r"([A-Z]):(\d+)", shown)}
    water = dict.fromkeys(holds, 0)
    for move in json.loads(gold):
        verb, what = move.split()
        if verb == "pour":
            one, other = what.split("->")
            much = min(water[one], holds[other] - water[other])
            water[one], water[other] = water[one] - much, water[other] + much
        else:
            water[what] = holds[what] if verb == "fill" else 0
    return int(target) in water.values()


def tower_of_hanoi(question: str, gold: str) -> bool:
    disks, pegs = map(int, re.search(r"with (\d+) disks and (\d+) pegs", question).groups())
    start, goal = map(int, re.search(r"from Peg (\d+) to Peg (\d+)", question).groups())
    tower: dict[int, list[int]] = {peg: [] for peg in range(1, pegs + 1)}
    tower[start] = list(range(disks, 0, -1))
    for disk, one, other in re.findall(r"Move disk (\d+) from Peg (\d+) to Peg (\d+)", gold):
        if tower[int(one)].pop() != int(disk) or any(below < int(disk) for below in tower[int(other)]):
            return False
        tower[int(other)].append(int(disk))
    return len(tower[goal]) == disks


def quantum_lock(question: str, gold: str) -> bool:
    """The shortest: buttons that do nothing may be pressed too, they change the light."""
    start, light, target = re.search(r"Start: (-?\d+) \((\w+)\)\nTarget: (-?\d+)", question).groups()
    buttons = re.findall(r"([A-Z]): (Add|Subtract|Multiply) (\d+) \(when (\w+)\)", question)
    keys = gold.split(" \N{RIGHTWARDS ARROW} ")
    states = {(int(start), light)}
    at = (int(start), light)
    for key in keys:
        at = pressed(at, next(button for button in buttons if button[0] == key))
    for _ in keys[1:]:
        states = {pressed(state, button) for state in states for button in buttons}
        if any(number == int(target) for number, _ in states):
            return False
    return at[0] == int(target)


def pressed(state: tuple[int, str], button: tuple[str, str, str, str]) -> tuple[int, str]:
    (number, light), (_, verb, amount, when) = state, button
    if when in ("any", light):
        n = int(amount)
        number = {"Add": number + n, "Subtract": number - n, "Multiply": number * n}[verb]
    return number, "red" if light == "green" else "green"


def sokoban(question: str, gold: str) -> bool:
    grid = [line.split() for line in question.split("puzzle:\n")[1].strip().splitlines()]
    walls, goals, boxes = cells(grid, "+"), cells(grid, "%X$"), cells(grid, "@$")
    (r, c) = next(iter(cells(grid, "*%")))
    for move in gold:
        dr, dc = {"R": (0, 1), "D": (1, 0), "L": (0, -1), "U": (-1, 0)}[move]
        ahead, beyond = (r + dr, c + dc), (r + 2 * dr, c + 2 * dc)
        if ahead in walls or (ahead in boxes and beyond in walls | boxes):
            return False
        if ahead in boxes:
            boxes = boxes - {ahead} | {beyond}
        r, c = ahead
    return boxes == goals


def knight_swap(question: str, gold: str) -> bool:
    """Knights' moves in turn, to squares that are there and free, which end with the colours swapped."""
    board: dict[str, str] = {}
    for row, line in re.findall(r"^(\d) \|(.*)\|$", question, re.MULTILINE):
        board |= {
            f"{'ABCDEFGH'[n]}{row}": cell.strip() for n, cell in enumerate(line.split("|")) if cell.strip()
        }
    if gold == "No":
        return not swaps(board, re.search(r"(\w) moves first", question)[1])
    start, turn = dict(board), re.search(r"(\w) moves first", question)[1]
    for move in json.loads(gold):
        color, one, other = move.split(",")
        jump = {abs(ord(one[0]) - ord(other[0])), abs(int(one[1]) - int(other[1]))}
        if color != turn or board[one] != color or board.get(other) != "." or jump != {1, 2}:
            return False
        board[one], board[other], turn = ".", color, "w" if color == "B" else "B"
    return board == {square: {"w": "B", "B": "w"}.get(piece, piece) for square, piece in start.items()}


def swaps(board: dict[str, str], first: str) -> bool:
    """Whether any play in turns swaps the colours."""
    squares = sorted(board)
    near = {
        a: [b for b in squares if {abs(ord(a[0]) - ord(b[0])), abs(int(a[1]) - int(b[1]))} == {1, 2}]
        for a in squares
    }
    start = tuple(board[square] for square in squares)
    goal = tuple({"w": "B", "B": "w"}.get(piece, piece) for piece in start)
    seen, queue = {(start, first)}, deque([(start, first)])
    while queue:
        state, turn = queue.popleft()
        if state == goal:
            return True
        for a, b in ((one, other) for one in squares for other in near[one]):
            if state[squares.index(a)] == turn and state[squares.index(b)] == ".":
                new = list(state)
                new[squares.index(a)], new[squares.index(b)] = ".", turn
                after_it = (tuple(new), "w" if turn == "B" else "B")
                if after_it not in seen:
                    seen.add(after_it)
                    queue.append(after_it)
    return False


def rectangle_count(question: str, gold: str) -> bool:
    """Whether each way to take the drawing apart has as many rectangles; above six, ways are too many."""
    if int(gold) > 6:
        return True
    lines = question.split("grid below?\n", 1)[1].split("\n")
    marks = {"#": 1, "\N{FULL BLOCK}": 2}
    left = Counter(
        {(r, c): marks[at] for r, line in enumerate(lines) for c, at in enumerate(line) if at in marks}
    )
    return set(apart(left)) == {int(gold)}


def apart(left: Counter[Cell], taken: int = 0) -> Iterator[int]:
    """Numbers of rectangles: the first cell that is left must be the upper left corner of one."""
    if not (cells := +left):
        yield taken
        return
    top, start = min(cells)
    for end in count(start + 2):
        if not all(left[top, c] > 0 for c in range(start, end + 1)):
            return
        for bottom in count(top + 1):
            if left[bottom, start] <= 0 or left[bottom, end] <= 0:
                break
            if bottom >= top + 2 and all(left[bottom, c] > 0 for c in range(start, end + 1)):
                edge = {(r, c) for r in (top, bottom) for c in range(start, end + 1)}
                edge |= {(r, c) for c in (start, end) for r in range(top, bottom + 1)}
                yield from apart(left - Counter(edge), taken + 1)


CHECKS: dict[str, Callable[[str, str], bool]] = {
    "binary_alternation": binary_alternation,
    "color_cube_rotation": color_cube_rotation,
    "course_schedule": course_schedule,
    "game_of_life": game_of_life,
    "jugs": jugs,
    "knight_swap": knight_swap,
    "largest_island": largest_island,
    "manipulate_matrix": manipulate_matrix,
    "maze": maze,
    "path_star": path_star,
    "pool_matrix": pool_matrix,
    "quantum_lock": quantum_lock,
    "rectangle_count": rectangle_count,
    "rotate_matrix": rotate_matrix,
    "rotten_oranges": rotten_oranges,
    "shortest_path": shortest_path,
    "sokoban": sokoban,
    "tower_of_hanoi": tower_of_hanoi,
}
