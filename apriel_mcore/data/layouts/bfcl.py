"""The Berkeley function-calling categories: questions, functions and answers, joined by id."""

from collections.abc import Iterator
from typing import Any

import msgspec

from apriel_mcore.config.schema import BfclSource
from apriel_mcore.data.item import Item, Tool, Unusable
from apriel_mcore.data.rows import BFCL_WHEEL, json_lines
from apriel_mcore.data.wheels import read_member
from apriel_mcore.errors import InputError
from apriel_mcore.types import Message
from apriel_mcore.verify import calls

_TYPES = {"dict": "object", "float": "number", "tuple": "array", "any": "string"}
_NO_CALL = frozenset({"irrelevance", "live_irrelevance"})
"""Categories whose questions no function answers: they have no file of answers."""
_LANGUAGES = {"simple_java": "Java", "simple_javascript": "JavaScript"}


class _Row(msgspec.Struct, frozen=True):
    id: str
    question: list[list[Message]]
    function: list[dict[str, Any]]


class _Answer(msgspec.Struct, frozen=True):
    id: str
    ground_truth: list[dict[str, dict[str, list[Any]]]]


def read(source: BfclSource) -> Iterator[tuple[str, Item | Unusable]]:
    """Every question with its place; Unusable where it has no answer."""
    for category in source.categories:
        yield from _category(category)


def _category(category: str) -> Iterator[tuple[str, Item | Unusable]]:
    file = f"BFCL_v4_{category}.json"
    answers = {} if category in _NO_CALL else _answers(file)
    for place, row in json_lines(read_member(BFCL_WHEEL, f"bfcl_eval/data/{file}"), file):
        found = msgspec.convert(row, _Row)
        try:
            yield place, _item(category, found, answers.get(found.id, []))
        except Unusable as reason:
            yield place, reason


def _answers(file: str) -> dict[str, list[dict[str, Any]]]:
    rows = json_lines(read_member(BFCL_WHEEL, f"bfcl_eval/data/possible_answer/{file}"), file)
    return {answer.id: answer.ground_truth for _, row in rows for answer in [msgspec.convert(row, _Answer)]}


def _item(category: str, row: _Row, answer: list[dict[str, Any]]) -> Item:
    if not answer and category not in _NO_CALL:
        raise Unusable("no_answer", f"{row.id} has no ground truth")
    messages = tuple(row.question[0])
    if not messages or messages[-1].role != "user":
        raise Unusable("no_question", f"{row.id} does not end with a user turn")
    reference = {"functions": row.function, "answer": answer, "kind": category}
    try:
        gold = calls.gold_text(reference)
    except InputError as error:
        raise Unusable("gold_refused", str(error)) from None
    return Item(
        messages=messages,
        verifier="calls",
        reference=reference | {"gold": gold},
        split_key=" ".join(messages[-1].content.split()),
        tools=tuple(_tool(function, _LANGUAGES.get(category, "")) for function in row.function),
    )


def _tool(function: dict[str, Any], language: str) -> Tool:
    """As JSON Schema, named as the checker wants calls to be named: dots become underscores."""
    shown = {
        "name": function["name"].replace(".", "_"),
        "description": function.get("description", ""),
        "parameters": _schema(function["parameters"], language),
    }
    return {"type": "function", "function": shown}


def _schema(schema: Any, language: str, depth: int = 0) -> Any:
    """Types by their JSON names; arguments of other languages are texts in that language's syntax."""
    if isinstance(schema, list):
        return [_schema(part, language, depth) for part in schema]
    if not isinstance(schema, dict):
        return schema
    named = {key: _schema(value, language, depth + 1) for key, value in schema.items()}
    kind = schema.get("type")
    if not isinstance(kind, str):
        return named
    if language and depth > 0:
        about = f"{schema.get('description', '')} Written as a {language} {kind} in a string.".strip()
        return {"type": "string", "description": about}
    return named | {"type": _TYPES.get(kind, kind)}
