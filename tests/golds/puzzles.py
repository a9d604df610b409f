"""Puzzles with a solution to find: solved again, or the gold held against every rule."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import combinations, product
from math import isqrt
from typing import Any

from tests.golds.sums import after, integers, is_prime

type Board = list[list[int]]
type Rule = Callable[[Board], bool]


def numbers(text: str) -> Board:
    return [[0 if n == "_" else int(n) for n in line.split()] for line in text.strip().splitlines()]


def latin(board: Board, fits: Callable[[Board, int, int], bool]) -> Iterator[Board]:
    """Every way to fill the zeros that fits at each step, the cell with the fewest values first."""
    size = len(board)
    open_cells = [(r, c) for r, c in product(range(size), repeat=2) if not board[r][c]]
    if not open_cells:
        yield [row[:] for row in board]
        return
    options: dict[tuple[int, int], list[int]] = {}
    for r, c in open_cells:
        options[r, c] = []
        for n in set(range(1, size + 1)) - set(board[r]) - {row[c] for row in board}:
            board[r][c] = n
            if fits(board, r, c):
                options[r, c].append(n)
        board[r][c] = 0
    r, c = min(open_cells, key=lambda cell: len(options[cell]))
    for n in options[r, c]:
        board[r][c] = n
        yield from latin(board, fits)
    board[r][c] = 0


def only(solutions: Iterator[Board], gold: Board) -> bool:
    return next(solutions, None) == gold and next(solutions, None) is None


def in_boxes(board: Board, r: int, c: int) -> bool:
    side = isqrt(len(board))
    top, left = r // side * side, c // side * side
    box = [n for row in board[top : top + side] for n in row[left : left + side]]
    return box.count(board[r][c]) == 1


def sudoku(question: str, gold: str) -> bool:
    grid = [line for line in question.splitlines() if re.fullmatch(r"[\d_]( [\d_])+", line)]
    return only(latin(numbers("\n".join(grid)), in_boxes), numbers(gold))


def futoshiki(question: str, gold: str) -> bool:
    lines = re.split(r":\n\n|\n\nEnsure", question)[1].split("\n")
    board = [[0 if n == "_" else int(n) for n in re.findall(r"[\d_]", line)] for line in lines[::2]]
    less: list[tuple[tuple[int, int], tuple[int, int]]] = []
    for number, line in enumerate(lines):
        for place, symbol in enumerate(line):
            r, c = number // 2, place // 4
            match symbol:
                case "<":
                    less.append(((r, c), (r, c + 1)))
                case ">":
                    less.append(((r, c + 1), (r, c)))
                case "\N{LOGICAL AND}":
                    less.append(((r, c), (r + 1, c)))
                case "\N{LOGICAL OR}":
                    less.append(((r + 1, c), (r, c)))
                case _:
                    pass

    def fits(board: Board, r: int, c: int) -> bool:
        pairs = ((board[a][b], board[d][e]) for (a, b), (d, e) in less if (r, c) in ((a, b), (d, e)))
        return all(low < high or not (low and high) for low, high in pairs)

    told = [[int(n) for n in re.findall(r"\d", line)] for line in gold.split("\n")[::2]]
    return only(latin(board, fits), told)


def kakurasu(question: str, gold: str) -> bool:
    """The gold keeps every sum; whether another grid does too does not matter to its scorer."""
    across, down = (json.loads(found) for found in re.findall(r"\[[\d, ]+\]", question)[:2])
    grid = numbers(gold)
    sums = [sum(n * weight for weight, n in enumerate(row, 1)) for row in grid]
    below = [sum(n * weight for weight, n in enumerate(column, 1)) for column in zip(*grid, strict=True)]
    return sums == across and below == down


def survo(question: str, gold: str) -> bool:
    grid = numbers(gold)
    shown = numbers("\n".join(re.findall(r"^[\d -]+$", question, re.MULTILINE)))
    use = json.loads(re.findall(r"\[[\d, -]+\]", question)[-1])
    filled = [
        n
        for row, given in zip(grid, shown, strict=True)
        for n, old in zip(row, given, strict=True)
        if not old
    ]
    kept = all(
        n == old
        for row, given in zip(grid, shown, strict=True)
        for n, old in zip(row, given, strict=True)
        if old
    )
    lines = [*grid, *zip(*grid, strict=True)]
    return kept and sorted(filled) == sorted(use) and all(sum(line[:-1]) == line[-1] for line in lines)


def self_reference(question: str, gold: str) -> bool:
    a, b, c, d = (int(re.search(rf"Statement {n}: '\D*(\d+)", question)[1]) for n in range(1, 5))
    count = 0
    for says in product((True, False), repeat=7):
        true = sum(says)
        false = 7 - true
        composite = false > 1 and not is_prime(false)
        count += says == (
            true >= a,
            false <= b,
            true == c,
            false == d,
            says[2] != says[3],
            is_prime(true),
            composite,
        )
    return count == int(gold)


def acre(question: str, gold: str) -> bool:
    """On where each set of blickets that explains the lights has one of these objects, off where none has."""
    arrow = " \N{RIGHTWARDS ARROW} "
    shown = re.findall(rf"^(.*){arrow}(on|off)$", question, re.MULTILINE)
    asked = set(after(question.split("\n\nWhat is")[0], "case:").split(", "))
    trials = [(set(objects.split(", ")), light == "on") for objects, light in shown]
    every = sorted(asked.union(*(objects for objects, _ in trials)))
    lights = {
        bool(asked & set(blickets))
        for size in range(len(every) + 1)
        for blickets in combinations(every, size)
        if all(bool(objects & set(blickets)) == light for objects, light in trials)
    }
    return (
        {True: "on", False: "off"}.get(lights.pop(), "") == gold
        if len(lights) == 1
        else gold == "undetermined"
    )


def mahjong_puzzle(question: str, gold: str) -> bool:
    hand = Counter(re.search(r"initial cards ([A-Z]+)", question)[1])
    said = ""
    for added, removed in re.findall(r"Add an? (\w) card and remove an? (\w) card", question):
        runs = (tuple(chr(ord(added) + step) for step in steps) for steps in ((-2, -1), (-1, 1), (1, 2)))
        said = "Peng" if hand[added] >= 2 else "Chi" if any(hand[a] and hand[b] for a, b in runs) else "Pass"
        hand[added] += 1
        hand[removed] -= 1
    return said == gold


def family_relationships(question: str, gold: str) -> bool:
    story, asked = question.split("\n\n")
    couples = re.findall(
        r"(\w+) is married to (\w+)\.(?: They have (?:a child|children) called ([\w, ]+)\.)?", story
    )
    spouse: dict[str, str] = {}
    parents: dict[str, set[str]] = {}
    for one, other, children in couples:
        spouse |= {one: other, other: one}
        for child in re.split(r", | and ", children) if children else []:
            parents.setdefault(child, set()).update((one, other))
    who, whose = re.search(
        r"(?:is|relation is) (\w+) (?:related )?to (\w+)", asked.replace("relation is", "is")
    ).groups()
    mine, theirs = parents.get(who, set()), parents.get(whose, set())
    kinds = {
        "mother father": who in theirs,
        "daughter son": whose in mine,
        "wife husband": spouse.get(who) == whose,
        "sister brother": bool(mine) and mine == theirs,
        "grandmother grandfather": any(who in parents.get(parent, ()) for parent in theirs),
        "granddaughter grandson": any(whose in parents.get(parent, ()) for parent in mine),
        "mother-in-law father-in-law": who in parents.get(spouse.get(whose, ""), ()),
        "daughter-in-law son-in-law": whose in parents.get(spouse.get(who, ""), ()),
    }
    return any(gold in words.split() for words, holds in kinds.items() if holds)


def aiw(question: str, gold: str) -> bool:
    """Matilda is one of the colleagues; a stranger's brother has no known sisters."""
    who = question.split()[0]
    if "Matilda" in question:
        return False
    women = re.search(r"(\d+) (?:sisters|female friends)", question)[1]
    known = "friends" in question or f"{who}'s brother" in question
    return known and int(gold) == int(women) + 1


def circuit_logic(facts: dict[str, Any], gold: str) -> bool:
    """Of the terms in the metadata: the drawing is not read."""
    inputs = facts["assignments"]
    gates = {
        "&": all,
        "+": any,
        "\N{UPWARDS ARROW}": lambda bits: not all(bits),
        "\N{DOWNWARDS ARROW}": lambda bits: not any(bits),
        "\N{CIRCLED PLUS}": lambda bits: sum(bits) % 2 == 1,
    }
    outs = []
    for term in facts["term_strings"]:
        names = re.findall(r"[A-Z]'?", term)
        bits = [bool(inputs[name[0]]) != name.endswith("'") for name in names]
        symbol = next((symbol for symbol in gates if symbol in term), "&")
        outs.append(gates[symbol](bits))
    final = {
        "AND": "&",
        "OR": "+",
        "NAND": "\N{UPWARDS ARROW}",
        "NOR": "\N{DOWNWARDS ARROW}",
        "XOR": "\N{CIRCLED PLUS}",
    }
    return int(gates[final[facts["final_gate"]]](outs)) == int(gold)


def knights_knaves(facts: dict[str, Any], gold: str) -> bool:
    """Of the statements in the metadata."""

    def true(said: list[Any], honest: tuple[bool, ...]) -> bool:
        match said:
            case ["telling-truth", int(who)]:
                return honest[who]
            case ["lying", int(who)]:
                return not honest[who]
            case ["not", inner]:
                return not true(inner, honest)
            case ["and", *parts]:
                return all(true(part, honest) for part in parts)
            case ["or", *parts]:
                return any(true(part, honest) for part in parts)
            case ["->", one, other]:
                return not true(one, honest) or true(other, honest)
            case ["<=>", one, other]:
                return true(one, honest) == true(other, honest)
            case _:
                raise ValueError(said)

    said = facts["statements"]
    found = [
        honest
        for honest in product((True, False), repeat=len(said))
        if all(true(s, honest) == honest[n] for n, s in enumerate(said))
    ]
    told = tuple(
        re.search(rf"{name} is (?:an? )?(\w+)", gold)[1] == facts["knight_knave_terms"]["knight"]
        for name in facts["names"]
    )
    return found == [told]


LETTERS = "ABCDEFGHIJKLMNOPQRS"


def tsumego(facts: dict[str, Any], gold: str) -> bool:
    """The one move after which the most white stones are gone."""
    board = {(r, c): stone for r, row in enumerate(facts["board"]) for c, stone in enumerate(row)}
    size = len(facts["board"])
    taken = {
        f"{LETTERS[c]}{size - r}": len(captured(board, (r, c)))
        for (r, c), stone in board.items()
        if stone == "."
    }
    best = max(taken.values())
    return best > 0 and [move for move, stones in taken.items() if stones == best] == [gold]


def captured(board: dict[tuple[int, int], str], move: tuple[int, int]) -> set[tuple[int, int]]:
    after_it = {**board, move: "X"}
    gone: set[tuple[int, int]] = set()
    for dr, dc in ((0, 1), (1, 0), (0, -1), (-1, 0)):
        start = (move[0] + dr, move[1] + dc)
        if after_it.get(start) != "O":
            continue
        group, free, todo = {start}, False, [start]
        while todo:
            r, c = todo.pop()
            for near in ((r + 1, c), (r - 1, c), (r, c + 1), (r, c - 1)):
                free |= after_it.get(near) == "."
                if after_it.get(near) == "O" and near not in group:
                    group.add(near)
                    todo.append(near)
        gone |= set() if free else group
    return gone


def modulo_grid(question: str, gold: str) -> bool:
    """Whether the rules of its kind that fit what is shown all fill the gap in the same way."""
    yes, no = "\N{WHITE HEAVY CHECK MARK}", "\N{CROSS MARK}"
    shown = [line for line in question.split("\n") if yes in line or no in line]
    rules = (lambda x, y: x + y, lambda x, y: abs(x - y), lambda x, y: x * y, lambda x, y: x**y)
    fills = set()
    for rule, divisor in product(rules, range(1, 21)):
        for target in range(min(divisor, 21)):
            made = [
                [yes if rule(x, y) % divisor == target else no for x in range(len(shown[0]))]
                for y in range(len(shown))
            ]
            if all(
                a == b or a not in (yes, no)
                for row, other in zip(shown, made, strict=True)
                for a, b in zip(row, other, strict=True)
            ):
                fills.add("\n".join("".join(row) for row in made))
    return fills == {gold}


def string_synthesis(question: str, gold: str) -> bool:
    a, b, c = integers(question.split("Now, you have")[1])[:3]
    n = dict(
        zip(["[A]", "[B]", "[C]", "{A}", "{B}", "{C}", "(A)", "(B)", "(C)"], [a, b, c] + [0] * 6, strict=True)
    )
    rules = [
        ({"[A]": 1, "[B]": 1, "[C]": 1}, {"{A}": 1}),
        ({"[A]": 1, "[B]": 1}, {"{C}": 1}),
        ({"[B]": 1, "[C]": 1}, {"{B}": 1}),
        ({"[C]": 2}, {"{C}": 1}),
        ({"{A}": 1, "{C}": 1}, {"(A)": 1, "(B)": 1}),
        ({"{B}": 2}, {"(C)": 1}),
    ]
    return exhausted(n, rules) == integers(gold)


def string_splitting(question: str, gold: str) -> bool:
    n = dict(zip("ABCXYZ", [*integers(question.split("Now, you have")[1])[:3], 0, 0, 0], strict=True))
    rules = [
        ({"A": 1}, {"X": 2, "Y": 1}),
        ({"B": 2}, {"X": 1}),
        ({"C": 2}, {"Y": 1}),
        ({"B": 1, "C": 1}, {"A": 1}),
        ({"X": 1, "Y": 1}, {"Z": 1}),
    ]
    return exhausted(n, rules) == integers(gold)


def exhausted(n: dict[str, int], rules: list[tuple[dict[str, int], dict[str, int]]]) -> list[int]:
    """The first rule that applies, again and again."""
    while rule := next(
        (rule for rule in rules if all(n[name] >= num for name, num in rule[0].items())), None
    ):
        n = {name: num - rule[0].get(name, 0) + rule[1].get(name, 0) for name, num in n.items()}
    return list(n.values())


CHECKS: dict[str, Callable[[str, str], bool]] = {
    "acre": acre,
    "aiw": aiw,
    "family_relationships": family_relationships,
    "futoshiki": futoshiki,
    "kakurasu": kakurasu,
    "mahjong_puzzle": mahjong_puzzle,
    "mini_sudoku": sudoku,
    "modulo_grid": modulo_grid,
    "self_reference": self_reference,
    "string_splitting": string_splitting,
    "string_synthesis": string_synthesis,
    "sudoku": sudoku,
    "survo": survo,
}
OF_FACTS = {"circuit_logic": circuit_logic, "knights_knaves": knights_knaves, "tsumego": tsumego}
