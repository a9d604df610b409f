r"""Is this the letter of the right option?

    box --> one letter? | no box: the last "answer is (B)" / "Answer: B" --> same as the gold

Never a guess: text from which no letter can be read is no answer. Two letters (also one behind the answer, up
to the end of the next sentence), a letter with more in its box, one that is taken back, and one beyond the
options are unparsable.
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
_SENTENCE_END = re.compile(r"(?<![.!?])[.!?]++[)*\"'$]*+(?:\s++|$)|\n\s*+")
_LETTER = re.compile(
    r"(?<![\w'])([A-Z])(?![\w']|-\w)"
    r"(?!\s++(?i:is|are)\s++(?i:wrong|incorrect|false)\b)"
    r"(?<!\bnot .)(?<!\bnot \(.)(?<!\bthan .)(?<!\binstead of .)"
)
"""A capital that stands alone and is not denied: "not C", "rather than C", "C is wrong"."""
_ARTICLE = re.compile(
    r"A [a-z]{2,}+(?<! is)(?<! or)(?<! and)(?<! nor)(?<! too)(?<! also)(?<! works)(?<! fits)"
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
    tail = answer[-_TAIL:]
    stated = [*_IN_PROSE.finditer(tail)]
    if not stated:
        return NO_ANSWER
    if _TAKEN_BACK.match(tail, stated[-1].end()) or _says_another(tail, stated, gold.num_options):
        return failed("unparsable", f"{stated[-1][0]!r} is not all that is said")
    return _compare(gold, stated[-1][1])


def _says_another(tail: str, stated: list[re.Match[str]], num_options: int) -> bool:
    """Whether another option stands behind the last statement, or was stated right before it and stands."""
    *before, last = stated
    if before and before[-1][1] != last[1] and not _TAKEN_BACK.match(tail, before[-1].end()):
        first, second = _sentences(tail, before[-1].end())
        if last.start() < before[-1].end() + len(first) + len(second):
            return True
    return any(
        found[1] != last[1] and _number(found[1]) < num_options and not _is_word(sentence, found.start())
        for sentence in _sentences(tail, last.end())
        for found in _LETTER.finditer(sentence)
    )


def _sentences(tail: str, start: int) -> tuple[str, str]:
    """What is left of a sentence, and the next one."""
    first = _SENTENCE_END.search(tail, start)
    middle = first.end() if first else len(tail)
    second = _SENTENCE_END.search(tail, middle)
    return tail[start:middle], tail[middle : second.end() if second else len(tail)]


def _is_word(sentence: str, place: int) -> bool:
    """Whether a capital is an article or a pronoun: "I think", and "A triangle" where words begin."""
    if sentence[place] == "I":
        return sentence[place + 1 : place + 2] == " "
    return not re.search(r"\w", sentence[:place]) and _ARTICLE.match(sentence, place) is not None


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
