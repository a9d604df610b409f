"""What is wrong with this recipe? msgspec's message, with the key path first and what would be right."""

import difflib
import re
from collections.abc import Iterator, Sequence

import msgspec

from apriel_mcore.config.schema import RunConfig
from apriel_mcore.config.tree import Tree


def explain(message: str, tree: Tree) -> str:
    """A complaint of msgspec about `tree` in our words: key path, what was found, what to do."""
    text, _, path = message.partition(" - at `")
    key_path = path.rstrip("`").removeprefix("$").lstrip(".")
    unknown = re.match(r"Object contains unknown field `([^`]+)`", text)
    if unknown:
        key = unknown.group(1)
        key_path = _locate(tree, key_path, key)
        return f"{key_path}: unknown key{_hint(key_path)}"
    key_path = _name_wildcards(tree, key_path, text) or "recipe"
    choices = _choices(key_path) if text.startswith(("Invalid enum value", "Invalid value")) else []
    allowed = f"; choose one of {', '.join(choices)}" if choices else ""
    return f"{key_path}: {text[0].lower()}{text[1:]}{allowed}"


def _hint(key_path: str) -> str:
    """The variant that has the key; the nearest key of the same section, else of any; else all of the
    section's."""
    section, _, key = key_path.rpartition(".")
    here = sorted(_fields(section))
    if key in here:
        kinds = ", ".join(f'"{kind.tag}"' for kind in _structs(section) if key in _names(kind))
        return f"; it belongs to kind = {kinds}"
    near = difflib.get_close_matches(key, here, n=1) or difflib.get_close_matches(key, _all_keys(), n=1)
    if near:
        return f"; did you mean `{near[0]}`?"
    return f"; this section knows {', '.join(here)}" if here else "; `apriel show` prints the known keys"


def _locate(tree: Tree, path: str, key: str) -> str:
    """Replace msgspec's `[...]` by the dict key that really holds `key`."""
    for candidate, table in _tables(tree):
        if key in table and re.fullmatch(_pattern(path), candidate):
            return f"{candidate}.{key}".lstrip(".")
    return f"{path}.{key}".lstrip(".")


def _name_wildcards(tree: Tree, path: str, text: str) -> str:
    """Name the dict key behind `[...]` where only one table can have been meant: for its value, if quoted."""
    if "[...]" not in path:
        return path
    parent, _, leaf = path.rpartition(".")
    matches = [
        name
        for name, table in _tables(tree)
        if re.fullmatch(_pattern(parent), name)
        and leaf in table
        and ("'" not in text or repr(table[leaf]) in text)
    ]
    return f"{matches[0]}.{leaf}" if len(matches) == 1 else path.replace("[...]", ".*")


def _pattern(path: str) -> str:
    return re.escape(path).replace(r"\[\.\.\.\]", r"\.[^.]+")


def _tables(tree: Tree, prefix: str = "") -> Iterator[tuple[str, Tree]]:
    yield prefix, tree
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _tables(value, f"{prefix}.{key}".lstrip("."))


# --- the schema as data ----------------------------------------------------------------------------


def _fields(path: str) -> set[str]:
    """Keys that may stand in the section at a path; of every variant, where it has several."""
    return {name for kind in _structs(path) for name in _names(kind)}


def _structs(path: str) -> list[msgspec.inspect.StructType]:
    """The sections that may stand at a path: several where it has variants."""
    return [kind for kind in _types_at(path) if isinstance(kind, msgspec.inspect.StructType)]


def _names(kind: msgspec.inspect.StructType) -> list[str]:
    return [field.name for field in kind.fields]


def _choices(path: str) -> list[str]:
    """The words that a key may hold: of a literal, or the kinds of a section with variants."""
    words: list[str] = []
    for kind in _types_at(path):
        if isinstance(kind, msgspec.inspect.LiteralType):
            words += [str(value) for value in kind.values]
    section, _, leaf = path.rpartition(".")
    if leaf == "kind":
        words += [str(struct.tag) for struct in _structs(section) if struct.tag_field == "kind"]
    return words


def _types_at(path: str) -> Sequence[msgspec.inspect.Type]:
    """What may stand at a dotted path, unions taken apart."""
    level = [msgspec.inspect.type_info(RunConfig)]
    for key in filter(None, path.split(".")):
        level = [member for kind in level for child in _children(kind, key) for member in _members(child)]
    return level


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


def _all_keys() -> list[str]:
    """Every key of every section."""
    names: set[str] = set()
    waiting = [msgspec.inspect.type_info(RunConfig)]
    while waiting:
        kind = waiting.pop()
        if isinstance(kind, msgspec.inspect.StructType):
            names |= {field.name for field in kind.fields}
            waiting += [member for field in kind.fields for member in _members(field.type)]
        elif isinstance(kind, msgspec.inspect.DictType):
            waiting += list(_members(kind.value_type))
    return sorted(names)
