"""Where does a sentence end?

A deterministic rule instead of a trained splitter: a sentence ends at `.`, `!` or `?` (any run of them,
with closing quotes and brackets) before white space or the end; line breaks alone end none. A dot ends none
after a title or another abbreviation, after an initial, and, before a lower-case letter, after a number,
after "p.m" and its kin, and as an ellipsis. Text without a word is not a sentence.
"""

import re

from apriel_mcore.verify.instruction.tokens import bare

_END = re.compile(
    r"(?<![.!?\u3002\uff01\uff1f])(?P<mark>[.!?\u3002\uff01\uff1f]++)[\"'\u2019\u201d)\]*_]*+(?=\s|$)"
)
_ABBREVIATIONS = frozenset([
    "mr", "mrs", "ms", "dr", "prof", "rev", "gen", "col", "capt", "lt", "sgt", "st", "jr", "sr",
    "inc", "ltd", "co", "corp", "vs", "etc", "e.g", "i.e", "cf", "al", "approx",
])  # fmt: skip
_BEFORE_NUMBERS = frozenset(["no", "fig", "vol"])
_STARTERS = frozenset([
    "he", "she", "it", "they", "we", "you", "the", "this", "that", "these", "there", "how", "if", "in", "on",
    "at", "when", "what", "which", "who", "each", "every", "one", "after",
])  # fmt: skip
"""Words that start a sentence and follow no initial: "farm B. He left", but "J. Doe"."""
_DOTTED = re.compile(r"(?:[A-Za-z]\.)+[A-Za-z]")  # p.m, U.S
_LOOK_AROUND = 24  # characters that the words around a dot may span


def split_sentences(text: str) -> list[str]:
    """The sentences of a text in order, stripped, each with its closing punctuation."""
    sentences: list[str] = []
    start = 0
    for end in _END.finditer(text):
        only_dots = not end["mark"].strip(".")
        if only_dots and not _closes(text, end.start(), end.end()):
            continue
        sentences.append(text[start : end.end()].strip())
        start = end.end()
    sentences.append(text[start:].strip())
    return [sentence for sentence in sentences if any(symbol.isalnum() for symbol in sentence)]


def _closes(text: str, dot: int, end: int) -> bool:
    """Whether the dots that start at `dot` end a sentence; what follows starts at `end`."""
    following = text[end : end + _LOOK_AROUND].split()
    before = text[max(0, dot - _LOOK_AROUND) : dot].split()
    if not following or not before:
        return True
    last = before[-1].lstrip("([\"'*_")
    if following[0][0].islower() and (
        text.startswith("..", dot) or last.isdigit() or _DOTTED.fullmatch(last) is not None
    ):
        return False
    is_initial = len(last) == 1 and last.isupper() and last != "I"
    if is_initial and (name := bare(following[0])) and name not in _STARTERS:
        return False
    if last.lower() in _BEFORE_NUMBERS and following[0][0].isdigit():
        return False
    return last.lower() not in _ABBREVIATIONS
