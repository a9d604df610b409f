"""Sums have the value that Python gives them, exactly, and nothing else is a sum."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apriel_mcore.verify.puzzles.arithmetic import value
from apriel_mcore.verify.puzzles.reading import Unreadable

NUMBERS = st.integers(0, 99).map(str)
SUMS = st.recursive(
    NUMBERS,
    lambda inner: (
        st.tuples(inner, st.sampled_from("+-*/%"), inner).map(lambda p: f"({p[0]} {p[1]}{p[2]})")
        | inner.map(lambda text: f"-{text}")
    ),
    max_leaves=8,
)


@given(SUMS)
def test_as_python_would_with_fractions(text: str) -> None:
    exact = "".join(f"Fraction({part})" if part.isdigit() else part for part in _split(text))
    try:
        expected = eval(exact, {"Fraction": Fraction})
    except ZeroDivisionError:
        with pytest.raises(Unreadable):
            value(text)
    else:
        assert value(text) == expected


def _split(text: str) -> list[str]:
    parts: list[str] = []
    for symbol in text:
        if symbol.isdigit() and parts and parts[-1].isdigit():
            parts[-1] += symbol
        else:
            parts.append(symbol)
    return parts


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2**3",
        "1//2",
        "01",
        "1 2",
        "1+",
        "(1",
        "1)",
        "a",
        "1.5",
        "9" * 13,
        "-" * 50 + "1",
        "1+" * 300 + "1",
    ],
)
def test_anything_else_is_unreadable(text: str) -> None:
    with pytest.raises(Unreadable):
        value(text)
