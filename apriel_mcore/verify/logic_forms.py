"""What must an answer look like before its scorer is asked?

Some scorers of reasoning-gym pick out of a text what they look for and pass over the rest: "not 15", "15 or
16" and "the answer 15 is wrong" score as much as "15". Their tasks have a form that the whole answer must
have; for every task, an answer that is the gold one and more words is no answer.
"""

import re

_NUMBER = r"-?(?:\d++(?:\.\d++)?|\.\d++)"
_NEXT_LINE = r"[^\S\n]*+\n\s*+"
_ROW = r"{cell}(?:[ \t]++{cell})*+"
_ROWS = rf"{_ROW}(?:{_NEXT_LINE}{_ROW})*+"
_WHO_IS = r"[A-Z]\w*+ is an? \w++"
_MOVE = r"Move disk \d++ from Peg \d++ to Peg \d++"

_FORMS = {
    task: re.compile(pattern)
    for task, pattern in {
        "fraction_simplification": r"\$?-?(?:\\d?frac\{\d+\}\{\d+\}|\d+/\d+)\$?",
        "kakurasu": _ROWS.format(cell="[01]"),
        "knights_knaves": rf"{_WHO_IS}(?:,? and {_WHO_IS}|, {_WHO_IS})*\.?",
        "polynomial_equations": rf"{_NUMBER}(?:,\s*+{_NUMBER})*+",
        "sokoban": r"[UDLR]+",
        "survo": _ROWS.format(cell=r"-?\d+"),
        "tower_of_hanoi": rf"{_MOVE}(?:{_NEXT_LINE}{_MOVE})*+",
    }.items()
}
_EXACT = frozenset({"letter_jumble", "spell_backward"})
"""Tasks with one right answer whose scorers reach the full score beyond it."""


def is_of_its_form(task: str, answer: str, gold: str) -> bool:
    """Whether the scorer may be asked; spaces at line ends and the case of letters do not matter."""
    plain, expected = _plain(answer), _plain(gold)
    if task in _EXACT:
        return plain == expected
    if task in _FORMS:
        return _FORMS[task].fullmatch(answer.strip()) is not None
    return not _says_more(plain, expected)


def _says_more(answer: str, gold: str) -> bool:
    """Whether there are letters besides the gold answer."""
    before, found, after = answer.partition(gold)
    return bool(found) and any(map(str.isalpha, before + after))


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()
