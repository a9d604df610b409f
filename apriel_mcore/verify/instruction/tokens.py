"""What is a word, and which parts does a divider make?

Three notions, because prompts and published checkers use three:
    words         runs of letters and digits; "don't" is two    (word counts of IFEval)
    spaced_words  between white space, punctuation shed; "don't" is one    (first, last, n-th word)
    penn_words    as the Penn Treebank splits: "I'm" is two, "U.S." is one    (words in capitals)
"""

import re

_WORD = re.compile(r"\w+")
_CORE = re.compile(r"[^\W_](?:.*[^\W_])?", re.DOTALL)
_PENN_BREAK = re.compile(
    r"\s+"
    r"|[;@#$%&?!\"()\[\]{}<>*`\u2018\u2019\u201c\u201d\u201e\u00ab\u00bb]|--|\.{2,}"
    r"|[:,](?!\d)"
    r"|(?='(?:s|m|d|ll|re|ve)(?!\w))|(?=n't(?!\w))|(?<=can)(?=not\b)",
    re.IGNORECASE,
)


def words(text: str) -> list[str]:
    """Runs of letters, digits and underscores; "don't" is two."""
    return _WORD.findall(text)


def has_word(text: str) -> bool:
    """Whether there is any."""
    return _WORD.search(text) is not None


def has_letter(text: str) -> bool:
    """Whether there is any, of any alphabet."""
    return any(map(str.isalpha, text))


def bare(token: str) -> str:
    """Without the punctuation around it, in one case: `"Don't,` is `don't`."""
    core = _CORE.search(token)
    return core[0].casefold() if core else ""


def spaced_words(text: str) -> list[str]:
    """Bare tokens between white space; those that are punctuation alone are left out."""
    return [word for token in text.split() if (word := bare(token))]


def penn_words(text: str) -> list[str]:
    """Tokens of the Penn Treebank, without those that are punctuation alone."""
    return [token for token in _PENN_BREAK.split(text) if token]


def parts(answer: str, divider: re.Pattern[str]) -> list[str]:
    """What stands between dividers, stripped; nothing if any but the first and last part lacks a word."""
    found = [part.strip() for part in divider.split(answer)]
    if not all(map(has_word, found[1:-1])):
        return []
    return [part for part in found if has_word(part)]
