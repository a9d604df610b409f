r"""Is this the letter of the right option?

    box --> one letter? | no box: the last "answer is (B)" / "Answer: B" --> same as the gold

Never a guess: text from which no single letter can be read is no answer, and a letter beyond the options is
unparsable.
"""

import re
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from apriel_mcore.errors import InputError
from apriel_mcore.types import Verdict
from apriel_mcore.verify.answer import final_answer, last_boxed
from apriel_mcore.verify.outcome import CORRECT, NO_ANSWER, failed, read_reference

_IN_BOX = re.compile(
    r"\s*(?:\\(?:text|textbf|mathrm|mathbf)\s*\{)?\s*\(?\s*([A-Z])\s*(?:$|[).:}\\].*)", re.DOTALL
)
"""A letter alone or at the head of its option's text: B, (B), \\text{B}, B. Paris."""
_IN_PROSE = re.compile(
    r"(?i:answer|choice|option)\s*(?:(?i:is)\s*:?|:|=)\s*(?:\*\*|\$)?\s*\(?\s*([A-Z])\b(?!')", re.DOTALL
)
_TAIL = 2000
"""Characters at the end of an answer in which prose is read."""


class Reference(msgspec.Struct, frozen=True):
    """Gold of a multiple-choice problem."""

    answer: Annotated[str, Meta(pattern="^[A-Z]$")]
    num_options: Annotated[int, Meta(ge=2, le=26)]


def verify(reference: dict[str, Any], text: str) -> Verdict:
    """The verdict on one answer; binary. InputError when the reference is not a Reference."""
    gold = read_reference(reference, Reference)
    answer = final_answer(text)
    boxed = last_boxed(answer)
    if boxed:
        found = _IN_BOX.fullmatch(boxed)
        if found is None:
            return failed("unparsable", f"no letter in the box: {boxed[:40]!r}")
        return _compare(gold, found[1])
    letters = _IN_PROSE.findall(answer[-_TAIL:])
    return _compare(gold, letters[-1]) if letters else NO_ANSWER


def self_check(reference: dict[str, Any]) -> None:
    """InputError unless the gold is one of the options."""
    gold = read_reference(reference, Reference)
    if _number(gold.answer) >= gold.num_options:
        raise InputError(f"reference: answer {gold.answer} is beyond its {gold.num_options} options")


def _compare(gold: Reference, letter: str) -> Verdict:
    if _number(letter) >= gold.num_options:
        return failed("unparsable", f"{letter} is beyond the {gold.num_options} options")
    return CORRECT if letter == gold.answer else failed("wrong", f"chose {letter}")


def _number(letter: str) -> int:
    return ord(letter) - ord("A")
