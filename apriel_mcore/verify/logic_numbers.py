"""Is this the number? For number_format, whose scorer takes near ones, and so a digit more or less."""

import re
from decimal import Decimal
from typing import Any

_NUMBER = re.compile(
    r"(?P<sign>[+-]?)(?P<size>(?:\d{1,3}(?:,\d{3})++|\d++)(?:\.\d++)?|\.\d++)(?P<power>[eE][+-]?\d{1,3})?",
    re.ASCII,
)


def is_the_number(answer: str, gold: str, metadata: dict[str, Any]) -> bool:
    """Equal to the gold, however written, or to the gold as its question writes it."""
    found = _number(answer)
    written = _as_asked(gold, metadata)
    return found is not None and found in {_number(text) for text in (gold, *written)}


def _number(text: str) -> Decimal | None:
    """Exact; None for anything but a number."""
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
