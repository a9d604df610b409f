"""Rows of the production puzzles: a question, and the puzzle as JSON within JSON."""

from typing import Any

import msgspec

from apriel_mcore.config.schema.layouts import Intellect3Logic
from apriel_mcore.data.item import Item, Unusable
from apriel_mcore.types import Message


class _Info(msgspec.Struct, frozen=True):
    task: str
    game_data_str: str


class _Game(msgspec.Struct, frozen=True):
    answer: Any = ""
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
    answer = game.answer if isinstance(game.answer, str) else msgspec.json.encode(game.answer).decode()
    if not answer.strip():
        raise Unusable("no_answer", f"a {info.task} puzzle without an answer")
    entry = {"question": found.question, "answer": answer, "metadata": game.metadata or {}}
    return Item(
        messages=(Message("user", found.question),),
        verifier="logic",
        reference={"task": info.task, "entry": entry, "gold": answer},
        split_key=" ".join(found.question.split()),
    )


def _decode[T](text: str, record: type[T]) -> T:
    try:
        return msgspec.json.decode(text, type=record)
    except msgspec.DecodeError as error:
        raise Unusable("no_answer", f"not the JSON of a puzzle: {error}") from None
