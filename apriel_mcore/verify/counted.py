"""Does the text after a number only name what is counted, or may it change, deny or doubt the number?

    apples | wrong answers | two-digit integers | eggs left over    names
    is wrong | wrong | halves | over two | or more | maybe          does not

A name is a noun with what describes it, and any word may be in it. What is no name shows by a verb or a
negation anywhere, by a word that changes the number next to it or at the end, or says nothing but a verdict.
"""

import re
from itertools import pairwise

_COUNTS = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million
billion trillion quadrillion dozen lakh crore mille
"""
_FRACTIONS = """
half third quarter fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth
fifteenth sixteenth seventeenth eighteenth nineteenth twentieth thirtieth fortieth fiftieth sixtieth
seventieth eightieth ninetieth hundredth thousandth millionth billionth trillionth
"""
"""Seconds are in the table of units; a third grader is no third."""
_PLURALS = {f"{word}s" for word in (_COUNTS + _FRACTIONS).split()} | {"halves", "sixes"}
_COUNTED = {"zeros", "ones", "quarters"}
"""Digits and coins."""

_VERBS = """
is are was were be been being has have had do does did equals gives makes means becomes says can could
may might must shall should will would guess guessed think believe suppose assume seem seems suspect doubt
"""
_DENIALS = """
cannot cant isnt aint no not nor neither never none nothing nope or either otherwise instead except excepting
excluding unless but if though although however wait oops sorry i it too typo nah nil
"""
_HEDGES = """
doubtful unsure maybe perhaps probably possibly presumably supposedly apparently approximately approx roughly
nearly almost circa ish
"""
_CHANGES = """
pi tau sqrt cbrt ln exp sin cos factorial infinity mod modulo plus minus divided multiplied increased
decreased raised rounded truncated doubled tripled quadrupled halved negated inverted squared cubed twice
thrice repeating recurring
"""
_BEFORE = "and over under above below beyond between about around from to till until up off half"
_AFTER = """
log tan root power base inverse reciprocal negative opposite double triple binary octal decimal hex remainder
equal least most minimum maximum up out bound excluded rejected denied
"""
_VERDICTS = """
wrong incorrect false untrue invalid impossible absurd mistaken bad error mistake nonsense
"""
_ALONE = """
fail fails failed removed refuted disproved incorrectly falsely estimated
possible likely uncertain unknown null void undefined non
a an the this that here answer result value solution number
"""
"""With the verdicts, what says nothing else: `a wrong answer`, while wrong answers are counted."""

_NUMBERS = (_PLURALS - _COUNTED).union((_COUNTS + _FRACTIONS).split())
_ANYWHERE = (_PLURALS - _COUNTED).union((_COUNTS + _VERBS + _DENIALS + _HEDGES).split())
_AT_START = frozenset((_CHANGES + _BEFORE).split())
_AT_END = frozenset((_FRACTIONS + _CHANGES + _AFTER + _VERDICTS).split())
_TALK = frozenset((_VERDICTS + _ALONE).split())
_PARTS = frozenset(_FRACTIONS.split())
_MULTIPLES = ("pair", "pairs", "couple", "gross", "score")
_THOUSANDS = ("k", "m", "b", "bn", "mn", "mln")
_BE = ("is", "are", "was", "were")
_STATES = ("left", "remaining", "needed", "required", "used")
_WORD = re.compile(r"(?:\d+(?:st|nd|rd|th)|\d+(?=-)|[^\W\d_]+)(?:['\u2019-][^\W\d_]+)*['\u2019]?")
_MARKS = re.compile("['\u2019-]")


def names_things(words: list[str]) -> bool:
    """Whether these words, at least one, can name what is counted.

    Small single letters are variables, or the imaginary unit.
    """
    lower = [word.lower() for word in words]
    if len(lower) > 1 and lower[-2] in _BE and lower[-1] in _STATES:  # `apples are left`
        words, lower = words[:-2], lower[:-2]
        if not lower:
            return True
    multiple = lower[0] in _THOUSANDS or (lower[0] in _MULTIPLES and lower[1:2] in ([], ["of"]))
    part = any(left in _PARTS and right == "of" for left, right in pairwise(lower))
    roots = any(left in ("square", "cube") and right == "roots" for left, right in pairwise(lower))
    at_ends = (
        lower[0] in _AT_START
        or lower[-1] in _AT_END
        or lower[-1].endswith("fold")
        or lower[-1][0].isdecimal()
    )
    return not (multiple or part or roots or at_ends or _TALK.issuperset(lower)) and all(map(_is_name, words))


def _is_name(word: str) -> bool:
    if len(word) == 1:
        return word.isalpha() and not word.islower()
    lower = word.lower()
    if not _WORD.fullmatch(lower) or lower in _ANYWHERE or lower.endswith(("n't", "n\u2019t")):
        return False
    return not all(part in _NUMBERS or part.isdecimal() for part in _MARKS.split(lower)) or lower in _PARTS
