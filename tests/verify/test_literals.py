"""Golds in Java and JavaScript, as the Berkeley checker reads them."""

from typing import Any

import pytest

from apriel_mcore.errors import InputError
from apriel_mcore.verify import calls
from apriel_mcore.verify.literals import literal

TEXTS, LONGS, ANY = {"type": "String"}, {"type": "long"}, {"type": "any"}


@pytest.mark.parametrize(
    ("value", "schema", "written"),
    [
        (3, {"type": "integer"}, "3"),
        (3, LONGS, "3L"),
        (2.5, {"type": "float"}, "2.5f"),
        (True, {"type": "boolean"}, "true"),
        ("pageSize", {"type": "integer"}, "pageSize"),
        ([1, 2], {"type": "ArrayList", "items": LONGS}, "new ArrayList<>(Arrays.asList(1L, 2L))"),
        (["a", "b"], {"type": "ArrayList", "items": TEXTS}, 'new ArrayList<>(Arrays.asList("a", "b"))'),
        (["a"], {"type": "ArrayList", "items": {"type": "char"}}, "new ArrayList<>(Arrays.asList('a'))"),
        (["a"], {"type": "ArrayList", "items": ANY}, "new ArrayList<>(Arrays.asList(a))"),
        ([], {"type": "ArrayList", "items": TEXTS}, "new ArrayList<>()"),
        (["a"], {"type": "Array", "items": TEXTS}, "new Object[]{a}"),
        ({"k": 1, "t": "x"}, {"type": "HashMap"}, 'new HashMap<>() {{ put("k", 1); put("t", "x"); }}'),
    ],
)
def test_java(value: Any, schema: dict[str, Any], written: str) -> None:
    assert literal(value, schema, "JAVA") == written
    assert accepted(value, schema, "simple_java")


@pytest.mark.parametrize(
    ("value", "schema", "written"),
    [
        (2.0, {"type": "float"}, "2.0"),
        (7, {"type": "Bigint"}, "7n"),
        (False, {"type": "Boolean"}, "false"),
        ("app", {"type": "any"}, "app"),
        ([[1, 2], [3, 4]], {"type": "array", "items": {"type": "array"}}, "[[1, 2], [3, 4]]"),
        (["a", "b"], {"type": "array", "items": TEXTS}, '["a", "b"]'),
        ({"k": ["a"], "n": True}, {"type": "dict"}, '{"k": ["a"], "n": true}'),
    ],
)
def test_javascript(value: Any, schema: dict[str, Any], written: str) -> None:
    assert literal(value, schema, "JAVASCRIPT") == written
    assert accepted(value, schema, "simple_javascript")


def test_another_language_is_refused() -> None:
    with pytest.raises(InputError, match="COBOL"):
        literal(3, {"type": "integer"}, "COBOL")


def accepted(value: Any, schema: dict[str, Any], kind: str) -> bool:
    """Whether the checker takes the gold, and not another value."""
    allowed = {key: [part] for key, part in value.items()} if isinstance(value, dict) else value
    function = {"name": "f", "parameters": {"properties": {"x": schema}, "required": ["x"]}}
    reference = {"functions": [function], "answer": [{"f": {"x": [allowed]}}], "kind": kind}
    other = '[{"name": "f", "arguments": {"x": "another"}}]'
    assert not calls.verify(reference, other).success
    return calls.verify(reference, calls.gold_text(reference)).success
