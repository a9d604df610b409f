r"""Is this the letter of the right option?

    box --> one letter? | no box: the last "answer is (B)" / "Answer: B" --> same as the gold

Never a guess: text from which no letter can be read is no answer. Two letters, a letter with more in its
box, one that is taken back, and one beyond the options are unparsable.
"""

import re
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from apriel_mcore.errors import InputError
from apriel_mcore.types import Verdict
from apriel_mcore.verify.answer import final_answer, last_boxed
from apriel_mcore.verify.outcome import CORRECT, NO_ANSWER, failed, read_reference

_IN_BOX = re.compile(  # possessive: linear
    r"(?:\\(?:text|textbf|mathrm|mathbf)\s*+\{\s*+)?\(?\s*+([A-Z])\s*+[).:]?+\s*+\}?\s*+\.?"
)
"""A letter alone: B, (B), \\text{B}. In "B) Paris" the text may as well deny it."""
_IN_PROSE = re.compile(
    r"(?i:answer|choice|option)\s*+(?:(?i:is)\s*+:?+|[:=])\s*+(?:\*\*|\$)?+\s*+\(?\s*+([A-Z])\b(?!')"
)
_TAKEN_BACK = re.compile(
    r"[^\w?/&|+]*+(?:[?/&|+]"
    r"|(?<=[,;] )\(?[A-HJ-Z]\b"
    r"|(?i:or|and)\b(?:\W++\w++){0,3}?\W+[A-Z]\b"
    r"|(?i:no|nope|wait|hmm|maybe|perhaps|actually)\b(?!\s+other)"
    r"|(?i:not)\b(?!\s+\(?[A-Z]\b)"
    r"|(?i:is|isn't|was|cannot|can't|may|might|seems)\b(?!\s+(?:the\s+)?(?:correct|right|best)\b))"
)
"""What follows a letter that does not stand alone: "B or C", "B, C", "B? No"; "B, not C" does."""
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
    tail = answer[-_TAIL:]
    stated = [*_IN_PROSE.finditer(tail)]
    if not stated:
        return NO_ANSWER
    if _TAKEN_BACK.match(tail, stated[-1].end()):
        return failed("unparsable", f"{stated[-1][0]!r} is not all that is said")
    return _compare(gold, stated[-1][1])


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
