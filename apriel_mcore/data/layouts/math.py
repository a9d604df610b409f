r"""Rows with a question and a gold answer: Open-Reasoner-Zero, Eurus, and data sets with two columns."""

from typing import Any

import msgspec

from apriel_mcore.config.schema.layouts import EurusMath, MathColumns, OpenReasonerZero
from apriel_mcore.data.item import Item, Unusable
from apriel_mcore.types import Message
from apriel_mcore.verify.answer import last_boxed


class _Task(msgspec.Struct, frozen=True):
    value: str


class _Gold(msgspec.Struct, frozen=True):
    ground_truth: _Task


class _EurusGold(msgspec.Struct, frozen=True):
    ground_truth: str


class _EurusRow(msgspec.Struct, frozen=True):
    prompt: list[dict[str, str]]
    ability: str
    reward_model: _EurusGold


def open_reasoner_zero(layout: OpenReasonerZero, row: Any) -> Item:
    """Two turns: a list as in the published JSON, or keys "0" and "1" as `datasets` loads it."""
    turns = [row.get("0"), row.get("1")] if isinstance(row, dict) else row
    if not isinstance(turns, list) or len(turns) < 2:
        raise Unusable("other_columns", "expected two turns")
    return _item(msgspec.convert(turns[0], _Task).value, msgspec.convert(turns[1], _Gold).ground_truth.value)


def columns(layout: MathColumns, row: Any) -> Item:
    """Question and answer by column name, after the layout's filters."""
    for column, text in layout.where.items():
        if text not in str(_column(row, column)):
            raise Unusable("filtered", f"{column} does not contain {text!r}")
    if layout.any_true and not any(_column(row, layout.any_true) or []):
        raise Unusable("filtered", f"{layout.any_true} holds no true value")
    question, answer = _column(row, layout.question), _column(row, layout.answer)
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        answer = str(answer)
    if not isinstance(question, str) or not isinstance(answer, str):
        raise Unusable("no_answer" if answer is None else "other_columns", "question or answer is not a text")
    item = _item(question, _cut(answer, layout), verifier=layout.verifier)
    level = str(_column(row, layout.level)) if layout.level else ""
    return msgspec.structs.replace(item, level=level)


def eurus(layout: EurusMath, row: Any) -> Item:
    """The last user turn; rows of other abilities are left out."""
    found = msgspec.convert(row, _EurusRow)
    if found.ability != "math":
        raise Unusable("filtered", f"ability {found.ability!r}")
    asked = [turn["content"] for turn in found.prompt if turn.get("role") == "user" and "content" in turn]
    if not asked:
        raise Unusable("no_question", "no user turn")
    return _item(asked[-1], found.reward_model.ground_truth)


def _column(row: Any, name: str) -> Any:
    if not isinstance(row, dict) or name not in row:
        raise Unusable("other_columns", f"no column {name!r}")
    return row[name]


def _cut(answer: str, layout: MathColumns) -> str:
    if layout.answer_in == "after_hashes":
        return answer.rpartition("####")[2] if "####" in answer else ""
    return last_boxed(answer) if layout.answer_in == "boxed" else answer


def _item(question: str, answer: str, *, verifier: str = "math") -> Item:
    question, answer = question.strip(), answer.strip()
    if "\\boxed" in answer:
        answer = last_boxed(answer)
    answer = answer.removeprefix("$").removesuffix("$").strip()
    if not question:
        raise Unusable("no_question", "the question is empty")
    if not answer:
        raise Unusable("no_answer", "the answer is empty")
    return Item(
        messages=(Message("user", question),),
        verifier=verifier,
        reference={"answer": answer, "format": "boxed", "gold": f"\\boxed{{{answer}}}"},
        split_key=" ".join(question.split()),
    )
