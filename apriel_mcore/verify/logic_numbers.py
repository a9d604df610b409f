"""Is this the number? For tasks with one number as their answer, whose scorers allow another one.

gsm_symbolic       its scorer does not see a sign, and reads 1 in "1,215"
decimal_arithmetic its scorer lets the last digits differ
number_format      its scorer takes numbers that are near, and so a digit more or less
"""

import re
from decimal import Decimal
from typing import Any

TASKS = frozenset({"decimal_arithmetic", "gsm_symbolic", "number_format"})

_NUMBER = re.compile(
    r"(?P<sign>[+-]?)\$?(?P<size>(?:\d{1,3}(?:,\d{3})++|\d++)(?:\.\d++)?|\.\d++)(?P<power>[eE][+-]?\d{1,3})?",
    re.ASCII,
)


def is_the_number(answer: str, gold: str, metadata: dict[str, Any]) -> bool:
    """Equal to the gold, however written, or to the gold as its question writes it."""
    found = _number(answer)
    written = _as_asked(gold, metadata) if "formatted_candidates" in metadata else []
    return found is not None and found in {_number(text) for text in (gold, *written)}


def _number(text: str) -> Decimal | None:
    """Exact; None for anything but a number, with or without a dollar sign."""
    read = _NUMBER.fullmatch(text.strip())
    if read is None:
        return None
    digits = "".join(read.group("sign", "size")).replace(",", "")
    return Decimal(digits + (read["power"] or ""))


def _as_asked(gold: str, metadata: dict[str, Any]) -> list[str]:
    """Candidates that are the gold; their exponents come with rounded digits, as 5.926413263049999e+08."""
    return [
        shown
        for number, shown in zip(metadata["candidates"], metadata["formatted_candidates"], strict=True)
        if str(number) == gold
    ]
