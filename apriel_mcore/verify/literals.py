"""How is a value written in Java or JavaScript? The Berkeley checker takes arguments of these as texts.

Written as its own reader takes them, which is less than the languages allow: a HashMap of HashMaps, an object
in an object, and texts with commas in a list cannot be read back.
"""

import json
from collections.abc import Callable
from typing import Any

from apriel_mcore.errors import InputError

_JAVA_SUFFIX = {"long": "L", "float": "f"}
_QUOTED = frozenset({"", "String", "char"})
"""Elements of a Java list of these types are read without their quotes; of other types, with them."""


def literal(value: Any, schema: dict[str, Any], language: str) -> str:
    """The source text of a value of the schema's type; `language` as bfcl-eval names it.

    A text stands for itself: it may be an expression, such as the name of a variable.
    """
    writers: dict[str, Callable[[Any, dict[str, Any]], str]] = {"JAVA": _java, "JAVASCRIPT": _javascript}
    if language not in writers:
        raise InputError(f"literals of {language} cannot be written; known are {', '.join(writers)}")
    return value if isinstance(value, str) else writers[language](value, schema)


def _java(value: Any, schema: dict[str, Any]) -> str:
    kind = schema["type"]
    nested = schema.get("items", {})
    if isinstance(value, list) and kind == "Array":
        # The checker strips the quotes of texts only where it is told no element type.
        elements = [_element(part, nested, quoted=not nested) for part in value]
        return f"new Object[]{{{', '.join(elements)}}}"
    if isinstance(value, list):
        quoted = nested.get("type", "") in _QUOTED
        elements = [_element(part, nested, quoted=quoted) for part in value]
        return f"new ArrayList<>(Arrays.asList({', '.join(elements)}))" if value else "new ArrayList<>()"
    if isinstance(value, dict):
        puts = [f"put({json.dumps(key)}, {_element(part, {}, quoted=True)});" for key, part in value.items()]
        return f"new HashMap<>() {{{{ {' '.join(puts)} }}}}"
    return json.dumps(value) + _JAVA_SUFFIX.get(kind, "")


def _javascript(value: Any, schema: dict[str, Any]) -> str:
    nested = schema.get("items", {})
    if isinstance(value, list):
        return f"[{', '.join(_javascript(part, nested) for part in value)}]"
    if isinstance(value, dict):
        return (
            f"{{{', '.join(f'{json.dumps(key)}: {_javascript(part, {})}' for key, part in value.items())}}}"
        )
    return json.dumps(value) + ("n" if schema.get("type") == "Bigint" else "")


def _element(value: Any, schema: dict[str, Any], *, quoted: bool) -> str:
    if isinstance(value, str):
        quote = "'" if schema.get("type") == "char" else '"'
        return f"{quote}{value}{quote}" if quoted else value
    return _java(value, {"type": "any"} | schema)
