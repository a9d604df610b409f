"""What is wrong with this recipe? msgspec's message, with the key path first and what would be right."""

import difflib
import operator
import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from apriel_mcore.config.schema import RunConfig
from apriel_mcore.config.tree import Tree
from apriel_mcore.errors import did_you_mean

_TYPES = {"int": int, "float": float, "str": str, "bool": bool, "array": list, "object": dict}
"""Python's, by the names in msgspec's messages."""
_HOLDS = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt}


def explain(message: str, tree: Tree, kind: type = RunConfig) -> str:
    """A complaint of msgspec about a `tree` in our words: key path, what was found, what to do."""
    schema = _Schema(kind)
    text, _, path = message.partition(" - at `")
    path = path.rstrip("`").removeprefix("$")
    field = re.match(r"Object (contains unknown|missing required) field `([^`]+)`", text)
    meant = list(_meant(schema, tree, path, text, field))
    key_path = meant[0] if len(meant) == 1 else path.lstrip(".").replace("[...]", ".*")
    if field and field.group(1) == "contains unknown":
        key_path = f"{key_path}.{field.group(2)}".lstrip(".")
        return f"{key_path}: unknown key{_hint(schema, key_path)}"
    choices = schema.choices(key_path) if text.startswith(("Invalid enum value", "Invalid value")) else []
    _, _, found = text.rstrip("'").partition("'")
    remedy = f"; {did_you_mean(found, choices)}" if choices else _nearest_sibling(schema, tree, key_path)
    return f"{key_path or 'recipe'}: {text[0].lower()}{text[1:]}{remedy}"


def _meant(schema: "_Schema", tree: Tree, path: str, text: str, field: re.Match[str] | None) -> Iterator[str]:
    """Where a path of msgspec's, which writes `[...]` for any key of a dict, may have found what it tells."""
    got = re.search(r"got `(\w+)`$", text)
    bound = re.search(r"` (<=|>=|<|>) (\S+)$", text)
    for place, value in _places(tree, re.findall(r"[^.\[\]]+|\[\.\.\.\]|\[\d+\]", path)):
        if field:
            is_there = field.group(1) == "contains unknown"
            fits = isinstance(value, dict) and (field.group(2) in value) == is_there
            fits = fits and schema.knows(place, value, field.group(2)) != is_there
        elif got:
            fits = isinstance(value, _TYPES.get(got.group(1), object))
        elif bound:
            fits = isinstance(value, int | float) and not _HOLDS[bound.group(1)](value, float(bound.group(2)))
        else:
            fits = "'" not in text or repr(value) in text
        if fits:
            yield place


def _places(value: Any, steps: Sequence[str], place: str = "") -> Iterator[tuple[str, Any]]:
    """Every key path of a tree that takes these steps, and what is there."""
    if not steps:
        yield place, value
        return
    step, *rest = steps
    if step.startswith("[") and isinstance(value, list) and step != "[...]":
        yield from _places(value[int(step[1:-1])], rest, place + step)
    elif isinstance(value, dict):
        for key in value if step == "[...]" else [step] if step in value else []:
            yield from _places(value[key], rest, f"{place}.{key}".lstrip("."))


def _nearest_sibling(schema: "_Schema", tree: Tree, key_path: str) -> str:
    """A misspelt name in a section of free names is one more section, which lacks what it needs."""
    section, _, name = key_path.rpartition(".")
    for _, siblings in _places(tree, list(filter(None, section.split(".")))):
        if schema.is_free(section) and (near := difflib.get_close_matches(name, set(siblings) - {name}, n=1)):
            return f"; did you mean `{section}.{near[0]}`?"
    return ""


def _hint(schema: "_Schema", key_path: str) -> str:
    """The variant that has the key; the nearest key of the same section, else of any; else all of the
    section's."""
    section, _, key = key_path.rpartition(".")
    here = sorted(schema.fields(section))
    if key in here:
        kinds = ", ".join(f'"{kind.tag}"' for kind in schema.structs(section) if key in _names(kind))
        return f"; it belongs to kind = {kinds}"
    elsewhere = schema.all_keys() - {key}
    near = difflib.get_close_matches(key, here, n=1) or difflib.get_close_matches(key, elsewhere, n=1)
    if near:
        return f"; did you mean `{near[0]}`?"
    return f"; this section knows {', '.join(here)}" if here else "; `apriel show` prints the known keys"


class _Schema:
    """What may stand in a tree of one kind, as data."""

    def __init__(self, kind: type) -> None:
        self._root = msgspec.inspect.type_info(kind)

    def fields(self, path: str) -> set[str]:
        """Keys that may stand in the section at a path; of every variant, where it has several."""
        return {name for kind in self.structs(path) for name in _names(kind)}

    def structs(self, path: str) -> list[msgspec.inspect.StructType]:
        """The sections that may stand at a path: several where it has variants."""
        return [kind for kind in self._types_at(path) if isinstance(kind, msgspec.inspect.StructType)]

    def knows(self, path: str, section: Tree, key: str) -> bool:
        """Whether the variant of a section has the key, or it is the one that says which."""
        return any(
            key in (*_names(kind), kind.tag_field)
            for kind in self.structs(path)
            if section.get(kind.tag_field or "", kind.tag) == kind.tag
        )

    def is_free(self, path: str) -> bool:
        """Whether the keys of the section at a path are names that the recipe chooses."""
        return any(isinstance(kind, msgspec.inspect.DictType) for kind in self._types_at(path))

    def choices(self, path: str) -> list[str]:
        """The words that a key may hold: of a literal, or the kinds of a section with variants."""
        words: list[str] = []
        for kind in self._types_at(path):
            if isinstance(kind, msgspec.inspect.LiteralType):
                words += [str(value) for value in kind.values]
        section, _, leaf = path.rpartition(".")
        if leaf == "kind":
            words += [str(struct.tag) for struct in self.structs(section) if struct.tag_field == "kind"]
        return words

    def all_keys(self) -> set[str]:
        """Every key of every section."""
        names: set[str] = set()
        waiting = [self._root]
        while waiting:
            kind = waiting.pop()
            if isinstance(kind, msgspec.inspect.StructType):
                names |= {field.name for field in kind.fields}
                waiting += [member for field in kind.fields for member in _members(field.type)]
            elif isinstance(kind, msgspec.inspect.DictType):
                waiting += list(_members(kind.value_type))
        return names

    def _types_at(self, path: str) -> Sequence[msgspec.inspect.Type]:
        """What may stand at a dotted path, unions taken apart."""
        level = [self._root]
        for key in filter(None, path.split(".")):
            level = [member for kind in level for child in _children(kind, key) for member in _members(child)]
        return level


def _names(kind: msgspec.inspect.StructType) -> list[str]:
    return [field.name for field in kind.fields]


def _children(kind: msgspec.inspect.Type, key: str) -> Iterator[msgspec.inspect.Type]:
    if isinstance(kind, msgspec.inspect.DictType):
        yield kind.value_type
    elif isinstance(kind, msgspec.inspect.StructType):
        yield from (field.type for field in kind.fields if field.name == key)


def _members(kind: msgspec.inspect.Type) -> Iterator[msgspec.inspect.Type]:
    if isinstance(kind, msgspec.inspect.UnionType):
        for member in kind.types:
            yield from _members(member)
    else:
        yield kind
