r"""Is this the gold answer, word for word? Spelling is folded and nothing is computed.

    box --fold--> equal strings?

For answers that no rule can compare, such as a name or a sentence: what this judge calls wrong may be right
in other words, which a model judge can say (second.py).
"""

import re
import unicodedata
from typing import Any, Literal

import msgspec

from apriel_mcore.errors import InputError
from apriel_mcore.types import Verdict
from apriel_mcore.verify.answer import final_answer, last_boxed
from apriel_mcore.verify.outcome import CORRECT, NO_ANSWER, failed, read_reference

MAX_CHARS = 10_000
_COMMAND = re.compile(r"\\(?:text|textbf|mathrm|mbox)\s*\{([^{}]*)\}")


class Reference(msgspec.Struct, frozen=True):
    """Gold of a problem whose answer is a text."""

    answer: str
    format: Literal["boxed", "whole"] = "boxed"
    r"""boxed: the last `\boxed{}` counts; whole: the final answer as it is."""


def verify(reference: dict[str, Any], text: str) -> Verdict:
    """The verdict on one answer; binary. InputError when the reference is not a Reference."""
    gold = read_reference(reference, Reference)
    answer = written_answer(text, boxed=gold.format == "boxed")
    if not answer:
        return NO_ANSWER
    if len(answer) > MAX_CHARS:
        return failed("unparsable", f"longer than {MAX_CHARS} characters")
    return CORRECT if fold(answer) == fold(gold.answer) else failed("wrong", "other words")


def written_answer(text: str, *, boxed: bool) -> str:
    """The part of a model's text that is compared."""
    answer = final_answer(text)
    return last_boxed(answer) if boxed else answer


def fold(answer: str) -> str:
    r"""Without `\text{}`, case, runs of white space, compatibility forms, and a full stop at the end."""
    plain = unicodedata.normalize("NFKC", _COMMAND.sub(r"\1", answer))
    return " ".join(plain.replace("$", "").split()).rstrip(".").strip().casefold()


def self_check(reference: dict[str, Any]) -> None:
    """InputError unless there is a gold text."""
    gold = read_reference(reference, Reference)
    if not fold(gold.answer) or len(gold.answer) > MAX_CHARS:
        raise InputError(
            f"reference: answer must have 1 to {MAX_CHARS} characters, found {gold.answer[:40]!r}"
        )
