"""What are the words of a text, and the runs of n words?"""

import re
from collections.abc import Iterator, Sequence

_WORD = re.compile(r"\w+")
_WORD_OR_MARK = re.compile(r"\w+|[^\w\s]")


def words(text: str) -> list[str]:
    """Words alone, in small letters: punctuation, white space and capitals do not part two texts."""
    return _WORD.findall(text.lower())


def words_and_marks(text: str) -> list[str]:
    """Words in small letters, and each mark by itself: 3 + 4 is not 3 - 4."""
    return _WORD_OR_MARK.findall(text.lower())


def runs(words: Sequence[str], length: int) -> Iterator[str]:
    """Every run of `length` words, in order; none where there are fewer words."""
    for start in range(len(words) - length + 1):
        yield " ".join(words[start : start + length])
