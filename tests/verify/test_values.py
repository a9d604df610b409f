import json
import math
from collections import Counter, OrderedDict, defaultdict, deque
from enum import IntEnum
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apriel_mcore.verify.values import MAX_DEPTH, MAX_SIZE, ValueNotPlain, decode, encode

KEYS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=4,
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.sets(KEYS, max_size=4)
        | st.dictionaries(KEYS, inner, max_size=4)
    ),
    max_leaves=20,
)


def identical(left: Any, right: Any) -> bool:
    """Equal with equal types all the way down; nan is identical to nan, 0.0 is not to -0.0."""
    if type(left) is not type(right):
        return False
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(identical(*pair) for pair in zip(left, right, strict=True))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(identical(left[key], right[key]) for key in left)
    if isinstance(left, float):
        return repr(left) == repr(right)
    return left == right


@given(VALUES)
def test_a_value_survives_json_text(value: Any) -> None:
    assert identical(decode(json.loads(json.dumps(encode(value)))), value)


@given(VALUES.filter(lambda value: "\\ud" not in json.dumps(encode(value))))
def test_a_tree_survives_the_dataset_format(value: Any) -> None:
    assert identical(decode(msgspec.json.decode(msgspec.json.encode(encode(value)))), value)


@given(st.sets(st.integers() | st.text(max_size=3), max_size=8))
def test_equal_sets_have_equal_trees(value: set[Any]) -> None:
    other_order: set[Any] = set()
    for item in sorted(value, key=repr, reverse=True):
        other_order.add(item)
    assert encode(other_order) == encode(value)


@pytest.mark.parametrize(
    ("value", "tree"),
    [
        ((1, [2.5, None]), {"tuple": [1, {"list": [2.5, None]}]}),
        ({1: "a"}, {"dict": [[1, "a"]]}),
        ({3, 1}, {"set": [1, 3]}),
        (2**53, {"int": "0x20000000000000"}),
        (-(2**53) + 1, -(2**53) + 1),
        (math.inf, {"float": "inf"}),
        (-math.inf, {"float": "-inf"}),
    ],
)
def test_format(value: Any, tree: Any) -> None:
    assert encode(value) == tree
    assert decode(tree) == value


@pytest.mark.parametrize("kind", [Counter, OrderedDict, lambda items: defaultdict(int, items)])
def test_dicts_of_the_standard_library_are_written_as_what_they_equal(kind: Any) -> None:
    assert identical(decode(encode(kind({"a": 1}))), {"a": 1})


def test_a_frozenset_is_written_as_the_set_it_equals() -> None:
    assert identical(decode(encode(frozenset({1}))), {1})


class LyingInt(int):
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = int.__hash__


class Colour(IntEnum):
    RED = 1


@pytest.mark.parametrize(
    "value",
    [LyingInt(3), Colour.RED, True + 1j, b"x", object(), deque([1]), range(3), [LyingInt(1)], {1: len}],
)
def test_other_types_are_refused(value: object) -> None:
    with pytest.raises(ValueNotPlain):
        encode(value)


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def test_depth_cap() -> None:
    assert decode(encode(nested(MAX_DEPTH))) == nested(MAX_DEPTH)
    circle: list[Any] = []
    circle.append(circle)
    for value in (nested(MAX_DEPTH + 1), circle):
        with pytest.raises(ValueNotPlain, match="deeper"):
            encode(value)
    tree: Any = 1
    for _ in range(MAX_DEPTH + 1):
        tree = {"list": [tree]}
    with pytest.raises(ValueNotPlain, match="deeper"):
        decode(tree)


@pytest.mark.parametrize(
    "value",
    [[0] * (MAX_SIZE + 1), "x" * (MAX_SIZE + 1), 1 << (4 * MAX_SIZE + 4)],
    ids=["list", "string", "integer"],
)
def test_size_cap(value: object) -> None:
    with pytest.raises(ValueNotPlain, match="larger"):
        encode(value)


@pytest.mark.parametrize(
    "tree",
    [
        [1],
        {},
        {"list": [], "tuple": []},
        {"list": 1},
        {"bytes": []},
        {"int": 5},
        {"int": "ten"},
        {"float": "1.5"},
        {"float": []},
        {"set": [{"list": []}]},
        {"set": [1, 1]},
        {"dict": [[1, 2], [1, 3]]},
        {"dict": [1]},
        {"dict": [[1]]},
        {"dict": [[{"set": []}, 1]]},
    ],
)
def test_other_trees_are_refused(tree: object) -> None:
    with pytest.raises(ValueNotPlain):
        decode(tree)
