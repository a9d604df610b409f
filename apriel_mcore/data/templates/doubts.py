"""Which puzzles of reasoning-gym have a gold that is not to be trusted, though their task is?

Each rule is short and exact. Tasks with wrong golds that no such rule tells are denied (verify/logic.py);
tests/golds works out again what both leave.
"""

from collections.abc import Callable
from typing import Any

from apriel_mcore.data.item import Unusable
from apriel_mcore.data.templates import syllogisms

type _Entry = dict[str, Any]


def doubt(task: str, entry: _Entry) -> Unusable | None:
    """Why an entry as it was generated makes no problem; None where it does."""
    if not entry["answer"].strip():
        return Unusable("no_answer", "the generator found none")
    return _DOUBTS[task](entry) if task in _DOUBTS else None


def _syllogism(entry: _Entry) -> Unusable | None:
    return syllogisms.doubt(entry["metadata"])


def _letter_counting(entry: _Entry) -> Unusable | None:
    letter, text = entry["metadata"]["target_letter"], "".join(entry["metadata"]["span"])
    if text.count(letter) == text.lower().count(letter):
        return None
    return Unusable("ambiguous", f"whether a capital {letter.upper()} counts")


def _simple_equations(entry: _Entry) -> Unusable | None:
    return (
        Unusable("ambiguous", "every number solves it") if entry["metadata"]["equation"] == "0 = 0" else None
    )


def _number_filtering(entry: _Entry) -> Unusable | None:
    """Of two equal numbers the gold has one twice."""
    numbers = entry["metadata"]["original_numbers"]
    if len(set(map(float, numbers))) == len(numbers):
        return None
    return Unusable("wrong_gold", "a number in two spellings")


def _needle_haystack(entry: _Entry) -> Unusable | None:
    needle = entry["metadata"]["question"].removeprefix("Who ").partition("?")[0]
    if entry["question"].count(f" {needle}. ") == 1:
        return None
    return Unusable("ambiguous", "more than one answers to it")


_DOUBTS: dict[str, Callable[[_Entry], Unusable | None]] = {
    "letter_counting": _letter_counting,
    "needle_haystack": _needle_haystack,
    "number_filtering": _number_filtering,
    "simple_equations": _simple_equations,
    "syllogism": _syllogism,
}
