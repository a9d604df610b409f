"""A recipe as nested tables: laid over each other, and taken apart into leaves."""

from typing import Any

Tree = dict[str, Any]


def merge(base: Tree, over: Tree) -> Tree:
    """`over` on top of `base`; a table whose `kind` changes replaces the base table whole."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if (
            isinstance(old, dict)
            and isinstance(value, dict)
            and value.get("kind", old.get("kind")) == old.get("kind")
        ):
            value = merge(old, value)
        merged[key] = value
    return merged


def leaves(tree: Tree, prefix: str = "") -> dict[str, object]:
    """Dotted key -> value of every leaf."""
    flat: dict[str, object] = {}
    for key, value in tree.items():
        path = f"{prefix}.{key}".lstrip(".")
        flat |= leaves(value, path) if isinstance(value, dict) and value else {path: value}
    return flat
