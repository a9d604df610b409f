r"""What does a short LaTeX answer say, before any computer algebra?

Spelling is made uniform, trailing units are set aside, and plain numbers become exact fractions. Most
answers are decided here; the rest goes to the parser in verify/math.py.
"""

import re
from fractions import Fraction

_SIZING = re.compile(r"\\(?:left|right|[bB]igg?[lr]?)(?![A-Za-z])\s*\.?")
_SPACE = re.compile(r"\\[,;:! ]|\\q?quad(?![A-Za-z])|~|\s+")
_GROUPS = re.compile(r"(?<![\d.])\d{1,3}(?: \d{3})+(?!\d)")
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_UNIT = re.compile(
    r"(.*[^\s\\])\s*\\(?:text|mathrm|textrm|mbox)\s*\{([^{}]*)\}\s*(?:\^\s*\{?\s*(-?\d+)\s*\}?)?"
)
_NUMBER = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)"
_DECIMAL = re.compile(_NUMBER)
_RATIO = re.compile(rf"({_NUMBER}) ?/ ?({_NUMBER})")
_FRAC = re.compile(rf"([+-]?)\\frac ?\{{ ?({_NUMBER}) ?\}} ?\{{ ?({_NUMBER}) ?\}}")
_FRAC_DIGITS = re.compile(r"([+-]?)\\frac ?(\d) ?(\d)")
_RESPELL = (
    ("\N{MINUS SIGN}", "-"),
    (r"\dfrac", r"\frac"),
    (r"\tfrac", r"\frac"),
    (r"\varnothing", r"\emptyset"),
    (r"\displaystyle", " "),
    ("{,}", ","),
    (r"\(", ""),
    (r"\)", ""),
    ("$", ""),
)
_UNITS = {
    "meter": "m",
    "metre": "m",
    "centimeter": "cm",
    "centimetre": "cm",
    "kilometer": "km",
    "kilometre": "km",
    "second": "s",
    "minute": "min",
    "hour": "h",
    "hr": "h",
    "gram": "g",
    "kilogram": "kg",
    "foot": "ft",
    "feet": "ft",
    "inch": "in",
    "inches": "in",
}


def respell(text: str) -> str:
    r"""One spelling for one thing: no sizing, no unpaired brackets, no digit groups, no trailing dot."""
    for old, new in _RESPELL:
        text = text.replace(old, new)
    text = _SPACE.sub(" ", _SIZING.sub(" ", text)).strip().rstrip(".").strip()
    text = _GROUPS.sub(lambda match: match.group().replace(" ", ""), text)
    if _THOUSANDS.fullmatch(text):
        text = text.replace(",", "")
    return _drop_unpaired(text)


def split_unit(text: str) -> tuple[str, str]:
    r"""(quantity, unit) of a respelled answer such as `5 \text{ cm}^2`; the unit is empty where none is.

    Text that stands alone is an answer, not a unit.
    """
    match = _UNIT.fullmatch(text)
    if match is None or match.group(1)[-1] in "=+-*/^_(,{[":
        return text, ""
    word = match.group(2).strip(" .")
    if len(word) > 2:  # short symbols keep their case: mW is not MW
        word = word.lower()
        word = _UNITS.get(word) or _UNITS.get(word.removesuffix("s"), word.removesuffix("s"))
    power = match.group(3) or "1"
    return match.group(1).strip(), word if power == "1" else f"{word}^{power}"


def exact_number(text: str) -> Fraction | None:
    r"""Value of a respelled plain integer, decimal, `a/b` or `\frac{a}{b}`; None for anything else.

    Decimals are exact: 0.333333 is not one third, and 0.1 is not 0.10000001.
    """
    if _DECIMAL.fullmatch(text):
        return Fraction(text)
    if ratio := _RATIO.fullmatch(text):
        sign, top, bottom = "", *ratio.groups()
    elif ratio := _FRAC.fullmatch(text) or _FRAC_DIGITS.fullmatch(text):
        sign, top, bottom = ratio.groups()
    else:
        return None
    if Fraction(bottom) == 0:
        return None
    value = Fraction(top) / Fraction(bottom)
    return -value if sign == "-" else value


def brackets(text: str) -> str:
    r"""The pair around a whole list: "{}" a set, "()" a tuple or open interval, "" neither."""
    if text.startswith(r"\{") and text.endswith(r"\}"):
        return "{}"
    if text.startswith("(") and text.endswith(")") and "," in text:
        return "()"
    return ""


def too_deep(text: str, nesting: int = 40, tower: int = 3) -> bool:
    """More brackets inside each other, or exponents upon exponents, than an honest answer has.

    Counted in one pass; parsers take seconds on such input, and powers of powers never end.
    """
    open_S: list[int] = []  # exponents that each open bracket stands in
    raised = 0
    previous = ""
    for symbol in text:
        if symbol in "{([":
            open_S.append(raised)
            raised += previous == "^"
        elif symbol in "})]" and open_S:
            raised = open_S.pop()
        if len(open_S) > nesting or raised > tower:
            return True
        if symbol != " ":
            previous = symbol
    return False


def _drop_unpaired(text: str) -> str:
    """Without parentheses that have no partner; half-open intervals pair `[` with `)`."""
    if text.count("(") + text.count("[") == text.count(")") + text.count("]"):
        return text
    open_S: list[int] = []
    unpaired: set[int] = set()
    for index, symbol in enumerate(text):
        if symbol in "([":
            open_S.append(index)
        elif symbol in ")]":
            if open_S:
                open_S.pop()
            else:
                unpaired.add(index)
    unpaired.update(open_S)
    return "".join(symbol for index, symbol in enumerate(text) if index not in unpaired).strip()
