"""Where does a sentence end?

A deterministic rule instead of a trained splitter: a sentence ends at `.`, `!` or `?` (any run of them,
with closing quotes and brackets) before white space or the end; line breaks alone end none. Dots alone do
not end one after a title or an abbreviation, after a single initial, or before a lower-case letter.
Text without a word is not a sentence.
"""

import re

_END = re.compile(r"(?P<mark>[.!?\u3002\uff01\uff1f]+)[\"'\u2019\u201d)\]*_]*(?=\s|$)")
_TITLES = ("mr", "mrs", "ms", "dr", "prof", "rev", "gen", "col", "capt", "lt", "sgt", "st", "jr", "sr")
_SHORT_FORMS = (
    "inc",
    "ltd",
    "co",
    "corp",
    "vs",
    "etc",
    "e.g",
    "i.e",
    "cf",
    "al",
    "fig",
    "no",
    "vol",
    "approx",
)
_ABBREVIATIONS = frozenset((*_TITLES, *_SHORT_FORMS))
_LOOK_BACK = 24  # characters that the word before a dot may span


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
    rest = text[end : end + _LOOK_BACK].lstrip()
    if rest and rest[0].islower():
        return False
    if not rest:
        return True
    words_before = text[max(0, dot - _LOOK_BACK) : dot].split()
    if not words_before:
        return True
    last = words_before[-1].lstrip("([\"'*_")
    is_initial = len(last) == 1 and last.isupper() and last != "I"
    return not is_initial and last.lower() not in _ABBREVIATIONS
