r"""Where does a solution stand in an answer, and what are its cells?

    answer --solution--> last code block, else the last \boxed{}, else the last bracketed group
           --rows------> [[1, 2], [3, 4]], ((1, 2), (3, 4)) and [[1 2, 3 4]] alike: cells as text
           --pairs-----> every (row, column) in it

Text is only ever split and compared. All scans are linear in it.
"""

import re

from apriel_mcore.verify.answer import last_boxed, last_code_block

_INNERMOST = re.compile(r"[\[(]([^\[\]()]*)[\])]")
_COMMA = re.compile(r"[,\uff0c]")
_PAIR = re.compile(r"[\[(]\s*(\d{1,4})\s*[,\uff0c]\s*(\d{1,4})\s*[\])]")
_COMMENT = re.compile(r"#[^\n]*")
_INTEGER = re.compile(r"-?\d{1,15}")
_OPEN, _CLOSE = "[({", "])}"

type Rows = list[list[str]]
type Grid = list[list[int]]


class Unreadable(Exception):
    """The answer holds nothing of the form that the puzzle asks for."""


def solution(answer: str) -> str:
    """The part that holds the solution; Unreadable when there is none."""
    found = last_code_block(answer) or last_boxed(answer) or last_group(answer)
    if not found.strip():
        raise Unreadable("no code block, box or bracketed group")
    return _COMMENT.sub("", found).strip()


def last_group(text: str) -> str:
    """The bracketed group that closes last, brackets included; empty when there is none."""
    end = max(map(text.rfind, _CLOSE))
    depth = 0
    for place in range(end, -1, -1):
        depth += (text[place] in _CLOSE) - (text[place] in _OPEN)
        if depth == 0:
            return text[place : end + 1] if end >= 0 else ""
    return ""


def boxed(answer: str) -> str:
    """Content of the last box; Unreadable when there is none."""
    found = last_boxed(answer)
    if not found:
        raise Unreadable(r"no \boxed{}")
    return found


def rows(answer: str) -> Rows:
    """Cells of the solution's rows, as text without quotes."""
    text = solution(answer)
    inner = _INNERMOST.findall(text)
    if len(inner) == 1 and len(inner[0].split()) > len(inner[0].split(",")):  # [[1 2, 3 4]]
        return [row.split() for row in _COMMA.split(inner[0])]
    found = [[cell.strip().strip("\"'") for cell in _COMMA.split(row.strip().rstrip(","))] for row in inner]
    if not found:
        raise Unreadable("no rows in brackets")
    return found


def grid(answer: str) -> Grid:
    """The solution's rows as integers."""
    return [[integer(cell) for cell in row] for row in rows(answer)]


def pairs(answer: str) -> list[tuple[int, int]]:
    """Every pair of numbers in the solution, in order."""
    return [(int(first), int(second)) for first, second in _PAIR.findall(solution(answer))]


def integer(text: str) -> int:
    """A number of at most 15 digits; Unreadable for anything else."""
    if _INTEGER.fullmatch(text.strip()) is None:
        raise Unreadable(f"not a number: {text[:20]!r}")
    return int(text)


def listed(text: str) -> list[str]:
    """Items between commas, without white space."""
    return ["".join(item.split()) for item in _COMMA.split(text)]


def is_shaped(found: list[list[str]] | list[list[int]], num_rows: int, num_columns: int) -> bool:
    """Whether it is a full grid of that size."""
    return len(found) == num_rows and all(len(row) == num_columns for row in found)
