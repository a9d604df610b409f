"""What is the value of a sum that somebody wrote? Exact, and nothing is executed.

sum     = product (("+" | "-") product)*
product = factor (("*" | "/" | "%") factor)*
factor  = number | "-" factor | "(" sum ")"
"""

import operator
import re
from fractions import Fraction

from apriel_mcore.verify.puzzles.reading import Unreadable

MAX_TOKENS = 200
_MAX_DEPTH = 30
_PRODUCTS = {"*": operator.mul, "/": operator.truediv, "%": operator.mod}
_TOKEN = re.compile(r"\s*(0|[1-9]\d{0,11}|[-+*/%()])")


def value(text: str) -> Fraction:
    """The exact value; Unreadable for anything but + - * / % and parentheses on whole numbers."""
    parser = _Parser(_tokens(text))
    found = parser.sum(0)
    if parser.peek():
        raise Unreadable(f"left over: {parser.peek()!r}")
    return found


def _tokens(text: str) -> list[str]:
    found: list[str] = []
    place = 0
    text = text.rstrip()
    while place < len(text):
        token = _TOKEN.match(text, place)
        if token is None or len(found) == MAX_TOKENS:
            raise Unreadable(f"not arithmetic: {text[place : place + 20]!r}")
        if found and found[-1].isdigit() and token.group(1).isdigit():
            raise Unreadable("a number with a leading zero, too many digits, or two in a row")
        found.append(token.group(1))
        place = token.end()
    return found


class _Parser:
    """Recursive descent over at most MAX_TOKENS tokens."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._place = 0

    def peek(self) -> str:
        """The next token, empty at the end."""
        return self._tokens[self._place] if self._place < len(self._tokens) else ""

    def take(self) -> str:
        """The next token, passed over."""
        token = self.peek()
        self._place += 1
        return token

    def sum(self, depth: int) -> Fraction:
        """product (("+" | "-") product)*"""
        total = self.product(depth)
        while self.peek() in ("+", "-"):
            total = total + self.product(depth) if self.take() == "+" else total - self.product(depth)
        return total

    def product(self, depth: int) -> Fraction:
        """factor (("*" | "/" | "%") factor)*"""
        total = self.factor(depth)
        while self.peek() in _PRODUCTS:
            operate = _PRODUCTS[self.take()]
            try:
                total = operate(total, self.factor(depth))
            except ZeroDivisionError:
                raise Unreadable("division by zero") from None
        return total

    def factor(self, depth: int) -> Fraction:
        """number | "-" factor | "(" sum ")" """
        token = self.take()
        if token.isdigit():
            return Fraction(int(token))
        if depth < _MAX_DEPTH and token == "-":
            return -self.factor(depth + 1)
        if depth < _MAX_DEPTH and token == "(":
            inner = self.sum(depth + 1)
            if self.take() == ")":
                return inner
        raise Unreadable(f"not arithmetic at {token!r}")
