"""Does the text after a number only name what is counted, or may it change, deny or doubt the number?

    apples | shaded squares | cups needed    names
    halves | is wrong | over two | maybe     does not

Any word may name a thing, so these are lists of words that do not, and such lists are never complete: what
they miss is accepted as a name (docs/judges.md).
"""

import re
from itertools import pairwise

_COUNTS = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million
billion trillion quadrillion dozen gross grand
"""
_FRACTIONS = """
half third quarter fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth
fifteenth sixteenth seventeenth eighteenth nineteenth twentieth thirtieth fortieth fiftieth sixtieth
seventieth eightieth ninetieth hundredth thousandth millionth billionth trillionth
"""
"""Seconds are in the table of units; quarters may be coins, and are refused."""

_CHANGES = """
times plus minus over mod modulo base power root sqrt cbrt log ln exp sin cos tan pi tau factorial inverse
reciprocal opposite negative twice thrice double triple quadruple fold remainder repeating recurring
periodic squared cubed doubled tripled quadrupled halved negated inverted multiplied divided added
subtracted increased decreased reduced raised rounded truncated binary octal decimal hex hexadecimal
infinity infinite off
"""
_DENIALS = """
no not non none never nor neither nope cannot cant isnt without nothing null void undefined false untrue
wrong incorrect invalid bad error mistake mistaken impossible absurd nonsense contradiction fail fails
failed exclude excludes excluded excluding except excepting but unless lacking rejected denied
"""
_HEDGES = """
maybe perhaps about around almost approx approximate circa ish may might could would should can will shall
must guess guessed estimate estimated suppose assume believe think seem seems suspect doubt doubtful hopeful
unsure uncertain unknown possible probable or and either any some if when then else otherwise instead rather
although though more less greater smaller larger fewer least most than minimum maximum below above under
beyond between from to up until till
"""
_VERBS = """
is are was were be been being has have had do does did become becomes make makes mean means equal equals
give gives get gets let say says
"""
_PLURALS = frozenset(f"{word}s" for word in (_COUNTS + _FRACTIONS).split()) | {"halves", "sixes"}
"""Of the other words a plural may be counted: cans, logs, roots of an equation."""

_DENIED = _PLURALS.union((_COUNTS + _FRACTIONS + _CHANGES + _DENIALS + _HEDGES + _VERBS).split())
_NO_ADVERBS = ("daily", "weekly", "monthly", "yearly", "hourly", "family", "assembly", "fly")
_MARKS = re.compile("['\u2019-]")
_POWERS = ("square", "sq", "cube", "cubic")


def names_things(words: list[str]) -> bool:
    """Whether these words, at least one, can name what is counted.

    Small single letters are variables, or the imaginary unit. A lone participle (`removed`) says what was
    done to the number; beside a noun (`cups needed`) it says which things.
    """
    lower = [word.lower() for word in words]
    roots = any(left in _POWERS and right == "roots" for left, right in pairwise(lower))
    participle = len(lower) == 1 and len(lower[0]) > 3 and lower[0].endswith("ed") and lower[0][-3] != "e"
    return not roots and not participle and all(map(_is_name, words))


def _is_name(word: str) -> bool:
    if len(word) == 1:
        return word.isalpha() and not word.islower()
    lower = word.lower()
    parts = _MARKS.split(lower)
    if not all(map(str.isalpha, parts)):
        return False
    if lower.endswith(("n't", "n\u2019t", "fold")) or (lower.endswith("ly") and _is_adverb(lower)):
        return False
    return _DENIED.isdisjoint(parts)


def _is_adverb(word: str) -> bool:
    """`probably`, `nearly`; not `lily`, and not what is counted or how often."""
    return len(word) > 4 and not word.endswith(_NO_ADVERBS)
