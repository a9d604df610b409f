"""What counts as the same value and the same output."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apriel_mcore.verify.compare import Comparison

STRICT = Comparison(rel_tol=1e-6, lenient=False)


@pytest.mark.parametrize(
    ("expected", "claimed", "equal"),
    [
        (1, True, True),
        (True, 1, True),
        (2, 2.0, True),
        (2, 2.0000001, False),
        (2.0, 2.0000001, True),
        (2.0, 2.0001, False),
        (2.0, 2, True),
        (1.0, 10**400, False),
        (math.nan, math.nan, True),
        (math.inf, math.inf, True),
        (math.inf, 1e308, False),
        (0.0, 1e-12, True),
        (1.0, "1.0", False),
        ([1], (1,), False),
        ([0.1, [0.2]], [0.1, [0.2 + 1e-12]], True),
        ([1], [1, 2], False),
        ({"a": 0.1}, {"a": 0.1 + 1e-12}, True),
        ({"a": 1}, {"b": 1}, False),
        ({1}, {1, 2}, False),
        (None, 0, False),
        ("", None, False),
        (False, None, False),
    ],
)
def test_values(expected: Any, claimed: Any, equal: bool) -> None:
    assert STRICT.values(expected, claimed) is equal


@given(st.recursive(st.integers() | st.floats(), lambda inner: st.lists(inner, max_size=3), max_leaves=6))
def test_a_value_is_the_same_as_itself(value: Any) -> None:
    assert STRICT.values(value, value)


@pytest.mark.parametrize(
    ("expected", "printed", "equal"),
    [
        ("1 2\n", "1  2 \n\n", True),
        ("1\n2", "1 2", False),
        ("0.3333333", "0.33333331", True),
        ("3", "3.0", False),
        ("3.0", "3", True),
        ("1.5 x", "1.5 y", False),
        ("a\n\nb", "a\nb", False),
        ("", "", True),
        ("1.0", "", False),
    ],
)
def test_texts(expected: str, printed: str, equal: bool) -> None:
    assert STRICT.texts(expected, printed) is equal


def test_a_lenient_comparison_takes_tuples_for_lists_and_nothing_else() -> None:
    lenient = Comparison(rel_tol=1e-6, lenient=True)
    assert lenient.values([1, [2]], (1, (2,)))
    assert not lenient.values([1], {1}) and not lenient.values([1], "1")
