"""Short answers that are compared with a known one, and sums that are reckoned."""

import re
from collections import Counter
from fractions import Fraction
from typing import Any

import msgspec

from apriel_mcore.verify.answer import last_boxed, last_code_block
from apriel_mcore.verify.puzzles.arithmetic import value
from apriel_mcore.verify.puzzles.reading import Unreadable, boxed, integer, listed, rows, solution

_TEXT_COMMAND = re.compile(r"\\(?:text|mathrm|textbf|mathbf)\s*\{([^{}]*)\}")
_BOLD = re.compile(r"\*\*([^*]+)\*\*")
_EQUATION = re.compile(r"(?<!\d)\d{1,12}(?:[-+*]\d{1,12}){1,20}=-?\d{1,13}")
_NUMBER = re.compile(r"\d{1,12}")
_SAID = {
    "yes": True,
    "true": True,
    "truth": True,
    "no": False,
    "false": False,
    "lie": False,
    "\u662f": True,
    "\u771f\u8bdd": True,
    "\u771f": True,
    "\u5426": False,
    "\u5047\u8bdd": False,
    "\u5047": False,
}


class Known(msgspec.Struct, frozen=True):
    """The right answer as text."""

    answer: str


def same_text(puzzle: Known, answer: str) -> bool:
    """In the box, in any case."""
    return boxed(answer).casefold() == puzzle.answer.strip().casefold()


def same_integer(puzzle: Known, answer: str) -> bool:
    """In the box."""
    return integer(boxed(answer)) == integer(puzzle.answer)


def same_list(puzzle: Known, answer: str) -> bool:
    """In the box: the same items in the same order."""
    return listed(boxed(answer)) == listed(puzzle.answer)


def same_set(puzzle: Known, answer: str) -> bool:
    """In the box: the same items in any order."""
    return set(listed(boxed(answer))) == set(listed(puzzle.answer))


def same_letters(puzzle: Known, answer: str) -> bool:
    """In the box: the same options, such as "A, C", in any order."""
    return _letters(boxed(answer)) == _letters(puzzle.answer)


def _letters(text: str) -> set[str]:
    found = re.findall(r"[A-Za-z]+", _TEXT_COMMAND.sub(r"\1", text))
    if any(len(word) > 1 for word in found):
        raise Unreadable("more than letters of options")
    return {letter.upper() for letter in found}


def same_value(puzzle: Known, answer: str) -> bool:
    """In the box: equal as mathematics."""
    from apriel_mcore.verify import math  # a second to import: a reader of puzzles need not

    return math.verify({"answer": puzzle.answer, "format": "boxed"}, answer).success


def same_equation(puzzle: Known, answer: str) -> bool:
    """The last equation of numbers is the known one, spaces aside."""
    found = _EQUATION.findall("".join(answer.split()).replace("\\times", "*"))
    if not found:
        raise Unreadable("no equation of numbers")
    return found[-1] == "".join(puzzle.answer.split())


def same_message(puzzle: Known, answer: str) -> bool:
    """The text in double brackets."""
    return _message(solution(answer)) == _message(puzzle.answer)


def _message(text: str) -> str:
    return text.strip().removeprefix("[[").removesuffix("]]").strip().strip("\"'")


def same_truths(puzzle: Known, answer: str) -> bool:
    """The last bold or boxed text, else the last line: yes and no in the same order, and nothing else."""
    bold = _BOLD.findall(answer)
    said = bold[-1] if bold else last_boxed(answer) or answer.splitlines()[-1].rpartition(":")[2]
    return _truths(said) == _truths(puzzle.answer)


def _truths(text: str) -> list[bool]:
    words = re.findall(r"\w+", text.casefold())
    if not words or any(word not in _SAID for word in words):
        raise Unreadable("other words than yes and no")
    return [_SAID[word] for word in words]


class MistakeAt(msgspec.Struct, frozen=True):
    """The step of the first mistake; none: there is no mistake."""

    answer: str | None = None


def same_mistake(puzzle: MistakeAt, answer: str) -> bool:
    """In the box: a number, or No."""
    expected = puzzle.answer or "No"
    found = boxed(answer)
    if found.isdigit() and expected.isdigit():
        return integer(found) == integer(expected)
    return found.casefold() == expected.casefold()


class Ownership(msgspec.Struct, frozen=True):
    """Who owns what in the end, as (("Ann", "a pen"), ("Bob", "a cup"))."""

    owns_after: str


def same_owners(puzzle: Ownership, answer: str) -> bool:
    """The same pairs, in any order and case."""
    return _owners(answer) == _owners(puzzle.owns_after)


def _owners(text: str) -> dict[str, str]:
    found = rows(text)
    owners = {row[0].casefold(): row[1].casefold() for row in found if len(row) == 2}
    if len(owners) != len(found):
        raise Unreadable("not pairs of a person and a thing")
    return owners


class Answers(msgspec.Struct, frozen=True):
    """Length and number of the longest sequences."""

    answer_maxLen: int
    answer_nums: int


class Records(msgspec.Struct, frozen=True):
    """Around the two."""

    answers: Answers


class TimeSequence(msgspec.Struct, frozen=True):
    """Both are known."""

    records: Records


def time_sequence(puzzle: TimeSequence, answer: str) -> bool:
    """[length, number]."""
    expected = puzzle.records.answers
    return rows(answer)[-1] == [str(expected.answer_maxLen), str(expected.answer_nums)]


class Zebra(msgspec.Struct, frozen=True):
    """The right table as JSON."""

    answer: str


def zebra(puzzle: Zebra, answer: str) -> bool:
    """The same JSON, keys in any order."""
    expected = _json(puzzle.answer)
    return expected == _json(last_code_block(answer) or answer[answer.find("{") :])


def _json(text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text.strip(), type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise Unreadable(f"not JSON: {error}") from None


class Mathador(msgspec.Struct, frozen=True):
    """Numbers to be used once each, operators allowed, the value to reach."""

    numbers: list[int]
    operators: list[str]
    result: float


def mathador(puzzle: Mathador, answer: str) -> bool:
    """An expression of all numbers that has the value."""
    written = _bare(last_code_block(answer) or last_boxed(answer) or answer)
    allowed = {sign for operator in puzzle.operators for sign in operator} | set("()")
    used = Counter(map(int, _NUMBER.findall(written)))
    if {sign for sign in written if not sign.isdigit() and not sign.isspace()} - allowed:
        return False
    return used == Counter(puzzle.numbers) and value(written) == Fraction(puzzle.result)


class MathPath(msgspec.Struct, frozen=True):
    """An equation with ? for some digits."""

    query_expr: str


def math_path(puzzle: MathPath, answer: str) -> bool:
    """The equation with all digits, and it holds."""
    written = "".join(_bare(_double_brackets(answer)).split())
    query = "".join(puzzle.query_expr.split())
    if len(written) != len(query) or written.count("=") != 1:
        return False
    if any(
        new != old if old != "?" else new not in "0123456789" for new, old in zip(written, query, strict=True)
    ):
        return False
    left, right = written.split("=")
    return value(left) == value(right)


def _bare(text: str) -> str:
    return text.strip().strip("[]`$ \n")


def _double_brackets(answer: str) -> str:
    _, opened, rest = answer.rpartition("[[")
    return rest.partition("]]")[0] if opened else solution(answer)
