"""What are the words of a text, and the runs of n words?"""

import re
from collections.abc import Iterator, Sequence

_UNSPACED = (
    "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Tibetan, Burmese, Khmer
    "\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # kana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
)
"""Scripts that are written without spaces between words."""
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")
_WORD_OR_MARK = re.compile(r"\w+|[^\w\s]")


def words(text: str) -> list[str]:
    """Words alone, in small letters: punctuation, white space and capitals do not part two texts.

    A script without spaces has no words to be seen: each of its characters is one.
    """
    return _WORD.findall(text.lower())


def words_and_marks(text: str) -> list[str]:
    """Words in small letters, and each mark by itself: 3 + 4 is not 3 - 4."""
    return _WORD_OR_MARK.findall(text.lower())


def runs(words: Sequence[str], length: int) -> Iterator[str]:
    """Every run of `length` words, in order; none where there are fewer words."""
    for start in range(len(words) - length + 1):
        yield " ".join(words[start : start + length])
