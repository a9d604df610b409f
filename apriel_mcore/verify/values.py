"""How does a plain Python value cross a process border? As tagged JSON, by exact type; no eval, no pickle.

    None, bool, str, finite float, |int| < 2**53    themselves
    larger int                                      {"int": "-0x20000000000000"}
    inf, -inf, nan                                  {"float": "inf"}
    list, tuple, set                                {"list": [...]}, {"tuple": [...]}, {"set": [...]}
    dict                                            {"dict": [[key, value], ...]}

Plain JSON loses tuples, sets, integer keys and large integers. Datasets store arguments and expected values
in this form, and the sandbox answers in it.

This file also runs inside the sandbox on the system's Python: standard library only, nothing newer than 3.9,
imported only where needed: it delays a cold start.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing typing is some percent of a cold start
    from typing import Any

MAX_DEPTH = 64
MAX_SIZE = 1_000_000
"""Containers and scalars count 1, strings and large integers also their characters."""

_PLAIN_INT = 2**53
"""From here on other JSON readers round integers, and msgspec's do not take them past 64 bits."""

_SET_TYPES = (set, frozenset)
_DICT_TYPES = ("Counter", "OrderedDict", "defaultdict")
"""Types of collections that compare equal to a plain dict of the same content."""
_INFINITY = float("inf")


class ValueNotPlain(ValueError):
    """The value, or the JSON tree, is outside what this file describes."""


class _Size:
    """What is left of MAX_SIZE while one value is walked."""

    def __init__(self) -> None:
        self.left = MAX_SIZE

    def spend(self, amount: int, depth: int) -> None:
        self.left -= amount
        if self.left < 0 or depth > MAX_DEPTH:
            raise ValueNotPlain(f"larger than {MAX_SIZE} items or deeper than {MAX_DEPTH} levels")


def encode(value: object) -> Any:
    """The JSON tree of a plain value; ValueNotPlain for any other type, size or depth.

    A frozenset is written as a set, and Counter, OrderedDict and defaultdict as the dict they equal.
    Elements of a set are ordered by their JSON text, so that equal values give equal trees.
    """
    return _encode(value, 0, _Size())


def _encode(value: Any, depth: int, size: _Size) -> Any:
    size.spend(1, depth)
    kind = type(value)
    if value is None or kind is bool:
        return value
    if kind is str:
        size.spend(len(value), depth)
        return value
    if kind is int:
        return _encode_int(value, depth, size)
    if kind is float:
        return value if abs(value) < _INFINITY else {"float": repr(value)}
    if kind is list or kind is tuple:
        return {kind.__name__: [_encode(item, depth + 1, size) for item in value]}
    if kind in _SET_TYPES:
        return {"set": _ordered([_encode(item, depth + 1, size) for item in value])}
    if _is_dict(kind):
        pairs = dict.items(value)
        return {
            "dict": [[_encode(key, depth + 1, size), _encode(item, depth + 1, size)] for key, item in pairs]
        }
    raise ValueNotPlain(f"a value of type {kind.__name__[:80]} is not plain")


def _ordered(trees: list[Any]) -> list[Any]:
    import json

    return sorted(trees, key=json.dumps)


def _is_dict(kind: type) -> bool:
    collections = sys.modules.get("collections")  # nobody has one of its dicts without it
    return kind is dict or (
        collections is not None and kind in [vars(collections).get(name) for name in _DICT_TYPES]
    )


def _encode_int(value: int, depth: int, size: _Size) -> Any:
    if abs(value) < _PLAIN_INT:
        return value
    size.spend(value.bit_length() // 4, depth)
    return {"int": hex(value)}


def decode(tree: object) -> Any:
    """The value of a JSON tree that `encode` wrote; ValueNotPlain for anything else."""
    return _decode(tree, 0, _Size())


def _decode(tree: Any, depth: int, size: _Size) -> Any:
    size.spend(1, depth)
    if tree is None or isinstance(tree, (bool, int, float)):
        return tree
    if isinstance(tree, str):
        size.spend(len(tree), depth)
        return tree
    if not isinstance(tree, dict) or len(tree) != 1:
        raise ValueNotPlain(f"expected a scalar or an object with one tag, found {type(tree).__name__}")
    ((tag, body),) = tree.items()
    if tag in ("int", "float"):
        return _decode_number(tag, body)
    if not isinstance(body, list):
        raise ValueNotPlain(f"the tag {tag[:80]!r} holds {type(body).__name__}, not a list")
    return _decode_container(tag, body, depth, size)


def _decode_number(tag: str, body: object) -> int | float:
    if isinstance(body, str):
        try:
            return (
                int(body, 16)
                if tag == "int"
                else {name: float(name) for name in ("inf", "-inf", "nan")}[body]
            )
        except (ValueError, KeyError):
            pass
    raise ValueNotPlain(f"not a tagged {tag}")


def _decode_container(tag: str, body: list[Any], depth: int, size: _Size) -> Any:
    if tag == "dict":
        return _hashed(dict, [_decode_pair(pair, depth, size) for pair in body])
    items = [_decode(item, depth + 1, size) for item in body]
    if tag == "list":
        return items
    if tag == "tuple":
        return tuple(items)
    if tag == "set":
        return _hashed(set, items)
    raise ValueNotPlain(f"unknown tag {tag[:80]!r}")


def _decode_pair(pair: object, depth: int, size: _Size) -> tuple[Any, Any]:
    if not isinstance(pair, list) or len(pair) != 2:
        raise ValueNotPlain("an entry of a dict is not a pair")
    return _decode(pair[0], depth + 1, size), _decode(pair[1], depth + 1, size)


def _hashed(kind: Any, items: list[Any]) -> Any:
    try:
        built = kind(items)
    except TypeError:
        raise ValueNotPlain(f"an unhashable element in a {kind.__name__}") from None
    if len(built) != len(items):
        raise ValueNotPlain(f"repeated elements in a {kind.__name__}")
    return built
