"""No pattern of a judge takes long on any text: its time grows with the text and not with its square.

Each compiled pattern meets texts of a head, one unit over and over, and a tail that spoils the match. Each
text is tried short; those that took longest are tried again longer, and the last few at 40,000 characters.
"""

import importlib
import inspect
import pkgutil
import re
import time
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any, NamedTuple

import pytest

import apriel_mcore.verify
from apriel_mcore.verify import math
from apriel_mcore.verify.alarm import OutOfTime, time_limit
from apriel_mcore.verify.no_call import calls_something

HEADS = (
    *("", "a", "1", "-", "!", '"', "A is a b", "1, ", "A \u2192 ", "Move disk 1 from Peg 1 to Peg 2\n", "^"),
    *("```", "**", "<<a ", "<", "[", "(", "\\boxed", "\\text", "\\text{", "\\frac", "\\frac{", "\\left", "$"),
    *("answer", "answer is", "answer is:", "answer is (", "final", "reference", "equivalent", "f(", "[f("),
)
UNITS = (
    *(" ", "\n", "\t", "a", "A", "1", "-", ".", ",", "!", "*", "`", "~", "[", "(", "{", "<", "\\", '"', "_"),
    *("1,", "1,000", "1 000 ", "1+", "a ", "!)", "a.", "<<a b>>", "1 1\n", " \n", "\\text{", "^{", "f("),
    *("<answer>", "answer is ", "A is a b, ", "a=1,", "\u2192 A", "'", "a.b."),
)
TAILS = ("", "x")
ROUNDS = ((300, 60), (1_200, 6))
"""Characters, and how many of the slowest texts go on: noise passes for one of a few, and not for long."""
LONG = 40_000
LONGEST_CPU_S = 0.3


class Scan(NamedTuple):
    """One use of one pattern."""

    name: str
    use: Callable[[str], object]


def scans() -> Iterator[Scan]:
    """Every module-level pattern of every judge, by the methods that its module calls on it; and those that
    are made for the names of a problem's functions."""
    yield Scan("no_call.calls_something", lambda text: calls_something(text, ["f"]))
    for found in pkgutil.walk_packages(apriel_mcore.verify.__path__, "apriel_mcore.verify."):
        module = importlib.import_module(found.name)
        source = inspect.getsource(module)
        for name, value in vars(module).items():
            for key, pattern in patterns(value):
                yield from (
                    Scan(f"{found.name.removeprefix('apriel_mcore.verify.')}.{name}{key}", use)
                    for use in uses(name, pattern, source)
                )


def patterns(value: Any) -> Iterator[tuple[str, re.Pattern[str]]]:
    if isinstance(value, re.Pattern):
        yield "", value
    elif isinstance(value, dict):
        yield from ((f"[{key}]", part) for key, part in value.items() if isinstance(part, re.Pattern))


def uses(name: str, pattern: re.Pattern[str], source: str) -> Iterator[Callable[[str], object]]:
    """A whole scan is asked for where the module does anything else than anchor the pattern."""
    called = set(re.findall(rf"\b{name}(?:\[\w+\])?\.(\w+)", source))
    if "fullmatch" in called:
        yield pattern.fullmatch
    if "match" in called:
        yield pattern.match
    if not called or called - {"match", "fullmatch"}:
        yield pattern.findall


def spent_s(scan: Scan, text: str) -> float:
    # Of the thread: while a timer of the process runs, the clock of the process moves in ticks only.
    start = time.thread_time()
    try:
        with time_limit(LONGEST_CPU_S):
            scan.use(text)
    except OutOfTime:
        return LONGEST_CPU_S
    return time.thread_time() - start


def hostile(head: str, unit: str, tail: str, size: int) -> str:
    return head + unit * ((size - len(head) - len(tail)) // len(unit)) + tail


def longest(scan: Scan) -> int:
    """The readers of mathematics see no text above their judge's limit."""
    return math.MAX_CHARS if scan.name.startswith(("latex.", "numerals.", "units.", "math.")) else LONG


@pytest.mark.parametrize("scan", list(scans()), ids=lambda scan: scan.name)
def test_time_grows_with_the_text(scan: Scan) -> None:
    slowest = list(product(HEADS, UNITS, TAILS))
    for size, num_kept in ROUNDS:
        texts = {parts: hostile(*parts, size) for parts in slowest}
        # The less of two: an interruption is none of the text's.
        spent = {parts: min(spent_s(scan, text) for _ in range(2)) for parts, text in texts.items()}
        slowest = sorted(spent, key=spent.__getitem__)[-num_kept:]
    for parts in slowest:
        assert spent_s(scan, hostile(*parts, longest(scan))) < LONGEST_CPU_S, parts


@pytest.mark.parametrize(
    "pattern", [r"(a|a)*b", r"<answer>(.*?)</answer>", r"^[\W_]+|[\W_]+$", r"[!?]+\)*(?=\s)"]
)
def test_a_pattern_whose_time_does_not_is_found(pattern: str) -> None:
    slow = Scan(pattern, re.compile(pattern).findall)
    with pytest.raises(AssertionError):
        test_time_grows_with_the_text(slow)
