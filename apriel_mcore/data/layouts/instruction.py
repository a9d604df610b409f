"""Rows with a prompt and the constraints that its answer must keep."""

import ast
from typing import Any

import msgspec

from apriel_mcore.config.schema.layouts import IfEval, MultiConstraints
from apriel_mcore.data.item import Item, Unusable
from apriel_mcore.errors import InputError
from apriel_mcore.types import Message
from apriel_mcore.verify.instruction.judge import self_check


class _Constraints(msgspec.Struct, frozen=True):
    instruction_id: list[str]
    kwargs: list[dict[str, Any] | None]


class _MultiRow(msgspec.Struct, frozen=True):
    messages: list[Message]
    ground_truth: str


class _IfEvalRow(msgspec.Struct, frozen=True):
    prompt: str
    instruction_id_list: list[str]
    kwargs: list[dict[str, Any] | None]


def multi_constraints(layout: MultiConstraints, row: Any) -> Item:
    """The first message, and element 0 of the literal in `ground_truth`. Nothing is evaluated."""
    found = msgspec.convert(row, _MultiRow)
    try:
        stated = ast.literal_eval(found.ground_truth)
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        raise Unusable("no_answer", f"ground_truth is not a literal: {error}") from None
    if not isinstance(stated, list) or not stated:
        raise Unusable("no_answer", "ground_truth holds no constraints")
    gold = msgspec.convert(stated[0], _Constraints)
    if not found.messages:
        raise Unusable("no_question", "messages is empty")
    return _item(found.messages[0].content, gold.instruction_id, gold.kwargs)


def ifeval(layout: IfEval, row: Any) -> Item:
    """A row of IFEval; its package stores the two lists as Python or as JSON values."""
    found = msgspec.convert(row, _IfEvalRow)
    return _item(found.prompt, found.instruction_id_list, found.kwargs)


def _item(prompt: str, kinds: list[str], kwargs: list[dict[str, Any] | None]) -> Item:
    if not prompt.strip():
        raise Unusable("no_question", "the prompt is empty")
    if not kinds or len(kinds) != len(kwargs):
        raise Unusable("no_answer", f"{len(kinds)} constraints with {len(kwargs)} arguments")
    instructions = [
        {"kind": kind, "args": _given(args or {})} for kind, args in zip(kinds, kwargs, strict=True)
    ]
    reference = {"instructions": instructions}
    try:
        self_check(reference)
    except InputError as error:
        raise Unusable("unknown_constraint", str(error)) from None
    return Item(
        messages=(Message("user", prompt),),
        verifier="instruction",
        reference=reference,
        split_key=" ".join(prompt.split()),
    )


def _given(args: dict[str, Any]) -> dict[str, Any]:
    """Without the columns that Parquet adds as null, and counts that it made floats as integers again."""
    return {
        name: int(value) if isinstance(value, float) and value.is_integer() else value
        for name, value in args.items()
        if value is not None
    }
