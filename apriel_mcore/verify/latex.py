r"""What does a short LaTeX answer say, before any computer algebra?

    text --respell--> one spelling --> verify/units.py (units aside) --> verify/numerals.py (exact numbers)

Most answers are decided there; the rest goes to the parser in verify/algebra.py.
"""

import re

_SIZING = re.compile(r"\\(?:left|right|[bB]igg?[lr]?)(?![A-Za-z])\s*\.?")
_ROW_BREAK = re.compile(r"\s*\\\\\s*")
_CELL = re.compile(r"\s*(?<!\\)&\s*")
_SPACE = re.compile(r"(?<!\\)\\[,;:! ]|\\q?quad(?![A-Za-z])|~|\\text\s*\{\s*\}|\s+")
_SPACES = re.compile(r" {2,}")
_DELIMITER = re.compile(r"(?<!\\)\$")  # of math; `\$` is money
_GROUPS = re.compile(r"(?<![\d.])\d{1,3}(?: \d{3})+(?!\d)")
_NEEDLESS = re.compile(r"(?<![A-Za-z\d]) | (?![A-Za-z\d])")
_WRAPPED = re.compile(
    r"\\(?:boxed ?\{([^{}]*)\}|(?:text|mathrm|mathbf|textbf|mbox) ?\{([\s+-]*[\d.,]*\d[\s.]*)\})"
)
"""A box within the box, or a number in another font."""
_RESPELL = (
    ("\N{MINUS SIGN}", "-"),
    ("\N{SUPERSCRIPT TWO}", "^2"),
    ("\N{SUPERSCRIPT THREE}", "^3"),
    (r"\dfrac", r"\frac"),
    (r"\tfrac", r"\frac"),
    (r"\varnothing", r"\emptyset"),
    (r"\displaystyle", " "),
    ("{,}", ","),
    (r"\(", ""),
    (r"\)", ""),
)


def respell(text: str) -> str:
    r"""One spelling for one thing: no sizing, no stray outer bracket, no digit groups, no trailing dot.

    Row breaks and cells of a matrix stay, each with a space on both sides.
    """
    for old, new in _RESPELL:
        text = text.replace(old, new)
    if r"\begin" in text:
        text = _CELL.sub(" & ", _ROW_BREAK.sub(r" \\\\ ", text))
    text = _DELIMITER.sub("", _SIZING.sub(" ", text))
    text = _SPACES.sub(" ", _SPACE.sub(" ", text)).strip().rstrip(".").strip()
    if wrapped := _WRAPPED.fullmatch(text):
        text = (wrapped[1] or wrapped[2] or "").strip()
    text = _GROUPS.sub(lambda match: match.group().replace(" ", ""), text)
    return _drop_unpaired(text)


def same_text(left: str, right: str) -> bool:
    """Whether two respelled answers differ in nothing but spaces that say nothing."""
    return left == right or _NEEDLESS.sub("", left) == _NEEDLESS.sub("", right)


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
    """Without parentheses around it that have no partner; half-open intervals pair `[` with `)`.

    One without a partner further in stays, and no parser takes the text: `a-(b+c` says no one value.
    """
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
    start, end = 0, len(text)
    while start < end and (text[start] == " " or (start in unpaired and text[start] in "([")):
        start += 1
    while end > start and (text[end - 1] == " " or (end - 1 in unpaired and text[end - 1] in ")]")):
        end -= 1
    return text[start:end]
