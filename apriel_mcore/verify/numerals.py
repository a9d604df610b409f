r"""Which exact number does a respelled piece of LaTeX spell, and how is it put so that a parser keeps it?

    12 | 1,234.5 | .5 | a/b | \frac{a}{b} | 1\frac{1}{2} | 0.1\overline{6} | 101_2  --exact_number--> Fraction

Decimals are the fractions that they spell: 0.333333 is not one third, and 0.1 is not 0.10000001.
"""

import re
from fractions import Fraction

_NUMBER = r"(?:\d+(?:\.\d*)?|\.\d+)"
_DECIMAL = re.compile(rf"[+-]?{_NUMBER}")
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+(?:\.\d*)?")
_RATIO = re.compile(rf"([+-]?)({_NUMBER}) ?/ ?([+-]?{_NUMBER})")
_FRAC = re.compile(rf"([+-]?)\\frac ?\{{ ?([+-]?{_NUMBER}) ?\}} ?\{{ ?([+-]?{_NUMBER}) ?\}}")
_FRAC_DIGITS = re.compile(r"([+-]?)\\frac ?(\d) ?(\d)")
_MIXED = re.compile(r"([+-]?)(\d+) ?(\\frac.*| \d+ ?/ ?\d+)")
_REPEATING = re.compile(r"(?<![\d.])(\d*)\.(\d*)\\(?:overline|bar|dot) ?\{ ?(\d+) ?\}(?! ?\d)")
_IN_BASE = re.compile(
    r"(?<![A-Za-z\d.^_}])(?:\((\d[\dA-Z]*)\)|(\d[\dA-Z]*|[A-Z]+\d[\dA-Z]*)) ?_ ?(?:\{ ?(\d+) ?\}|(\d+))"
)
_POINT = re.compile(r"(?<![\d.])(\d*)\.(\d+)")
_NOT_A_NUMBER = re.compile(
    r"(?<!\\frac )(?<!\\binom )(?<![\d._])\d[\d.]* \.?\d"  # the parser adds 1 2
    r"|\d\)? ?_"  # drops a subscript that is no base
    r"|\d ?(?:\\\$|%) ?\d"  # joins 1\$2
    r"|\d\.\d*\.\d|\d ?'"  # takes 7.0.5 and 7' for numbers
    r"|\\boxed"
)
"""What the parser takes for another number than the one that is written."""


def exact_number(text: str) -> Fraction | None:
    """The value of a respelled numeral; None for anything else."""
    if _DECIMAL.fullmatch(text):
        return Fraction(text)
    if _THOUSANDS.fullmatch(text):
        return Fraction(text.replace(",", ""))
    for form in (_RATIO, _FRAC, _FRAC_DIGITS):
        if match := form.fullmatch(text):
            return _quotient(*match.groups())
    sign, rest = (text[0], text[1:].strip()) if text[:1] in ("+", "-") else ("", text)
    value = _mixed(rest)
    if match := _REPEATING.fullmatch(rest):
        value = _repeating(match)
    if match := _IN_BASE.fullmatch(rest):
        value = _in_base(match)
    return -value if value is not None and sign == "-" else value


def bases(text: str) -> set[int]:
    """Those that its numbers name, as `101_2` does."""
    found = [match for match in _IN_BASE.finditer(text) if _in_base(match) is not None]
    return {int(match[3] or match[4]) for match in found}


def exactly(text: str) -> str:
    """The same expression with its decimals and its numbers in other bases as fractions and integers.

    Empty where the parser would read another number than the one that is written.
    """
    text = _REPEATING.sub(lambda match: _spelled(_repeating(match), match), text)
    text = _IN_BASE.sub(lambda match: _spelled(_in_base(match), match), text)
    if _NOT_A_NUMBER.search(text):
        return ""
    return _POINT.sub(lambda match: _spelled(Fraction(match.group()), match), text)


def _spelled(value: Fraction | None, match: re.Match[str]) -> str:
    if value is None:
        return match.group()
    if value.denominator == 1:
        return str(value)
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"


def _quotient(sign: str, top: str, bottom: str) -> Fraction | None:
    if Fraction(bottom) == 0:
        return None
    value = Fraction(top) / Fraction(bottom)
    return -value if sign == "-" else value


def _mixed(text: str) -> Fraction | None:
    match = _MIXED.fullmatch(text)
    part = exact_number(match[3].strip()) if match else None
    return Fraction(match[2]) + part if match and part is not None and 0 <= part < 1 else None


def _repeating(match: re.Match[str]) -> Fraction:
    """0.1 then 6 for ever: (16 - 1) / 90."""
    whole, fixed, period = match.groups()
    head, scale = int((whole or "0") + fixed), 10 ** len(fixed)
    return (head + Fraction(int(period), 10 ** len(period) - 1)) / scale


def _in_base(match: re.Match[str]) -> Fraction | None:
    """None where a digit does not exist in the base."""
    base = int(match[3] or match[4])
    try:
        return Fraction(int(match[1] or match[2], base)) if 2 <= base <= 36 else None
    except ValueError:
        return None
