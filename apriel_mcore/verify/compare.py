"""Is what a solution returned or printed the same as what was expected?"""

import math
from typing import Any

import msgspec

ABS_TOL = 1e-9
"""For expected zeros, where a relative tolerance is none."""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """What counts as equal."""

    rel_tol: float
    lenient: bool

    def values(self, expected: Any, claimed: Any) -> bool:
        """Equal as `==` of Python says, except that expected floats have a tolerance and nan equals nan.

        So True equals 1 and 2.0 equals 2, a list equals a tuple only if lenient, an expected int is exact.
        Floats are tolerant anywhere but in sets and as keys.
        """
        if type(expected) is float and type(claimed) in (int, float):
            return self._close(expected, claimed)
        if isinstance(expected, (list, tuple)):
            kinds = (list, tuple) if self.lenient else (type(expected),)
            return (
                type(claimed) in kinds
                and len(claimed) == len(expected)
                and all(self.values(*pair) for pair in zip(expected, claimed, strict=True))
            )
        if type(expected) is dict:
            return (
                type(claimed) is dict
                and claimed.keys() == expected.keys()
                and all(self.values(value, claimed[key]) for key, value in expected.items())
            )
        return claimed == expected

    def texts(self, expected: str, printed: str) -> bool:
        """Equal outputs of a program: line by line, words compared, floats with tolerance.

        White space between words and at the end of lines is free, and so are empty lines at the end.
        """
        wanted = [line.split() for line in expected.rstrip().split("\n")]
        found = [line.split() for line in printed.rstrip().split("\n")]
        return [len(line) for line in wanted] == [len(line) for line in found] and all(
            self._words(word, other)
            for line, others in zip(wanted, found, strict=True)
            for word, other in zip(line, others, strict=True)
        )

    def _words(self, expected: str, printed: str) -> bool:
        if expected == printed:
            return True
        if "." not in expected:  # an integer or a name is exact
            return False
        try:
            return self._close(float(expected), float(printed))
        except ValueError:
            return False

    def _close(self, expected: float, claimed: float) -> bool:
        if math.isnan(expected):
            return claimed != claimed
        try:
            return math.isclose(expected, claimed, rel_tol=self.rel_tol, abs_tol=ABS_TOL)
        except OverflowError:  # an integer beyond the range of floats
            return False
