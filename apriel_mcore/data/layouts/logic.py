"""Rows of the production puzzles: a question, and the puzzle as JSON within JSON."""

from typing import Any

import msgspec

from apriel_mcore.config.schema.layouts import Intellect3Logic
from apriel_mcore.data.item import Item, Unusable
from apriel_mcore.errors import InputError
from apriel_mcore.types import Message
from apriel_mcore.verify.puzzles.judge import gold_text, self_check


class _Info(msgspec.Struct, frozen=True):
    task: str
    game_data_str: str


class _Game(msgspec.Struct, frozen=True):
    question: str = ""
    answer: Any = None
    metadata: dict[str, Any] | None = None


class _Row(msgspec.Struct, frozen=True):
    question: str
    info: str


def intellect3(layout: Intellect3Logic, row: Any) -> Item:
    """A puzzle within the layout's solve rates and not of a skipped task."""
    found = msgspec.convert(row, _Row)
    info = _decode(found.info, _Info)
    if info.task in layout.skip_tasks:
        raise Unusable("filtered", f"task {info.task}")
    rate = row.get(layout.solve_rate_column)
    if not isinstance(rate, int | float):
        raise Unusable("no_solve_rate", f"no number in column {layout.solve_rate_column!r}")
    if not layout.min_solve_rate <= rate <= layout.max_solve_rate:
        raise Unusable("filtered", f"solve rate {rate:g}")
    game = _decode(info.game_data_str, _Game)
    facts = {**(game.metadata or {}), "question": game.question, "answer": _as_text(game.answer)}
    try:
        reference = {"task": info.task, "facts": facts, "gold": gold_text(info.task, facts)}
        self_check(reference)
    except InputError as error:
        raise Unusable("unknown_puzzle", str(error)) from None
    return Item(
        messages=(Message("user", found.question),),
        verifier="puzzles",
        reference=reference,
        split_key=" ".join(found.question.split()),
    )


def _as_text(answer: Any) -> str | None:
    return answer if answer is None or isinstance(answer, str) else msgspec.json.encode(answer).decode()


def _decode[T](text: str, record: type[T]) -> T:
    try:
        return msgspec.json.decode(text, type=record)
    except msgspec.DecodeError as error:
        raise Unusable("no_answer", f"not the JSON of a puzzle: {error}") from None
