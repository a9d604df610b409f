r"""Rows with a question and its options, of which one is right: GPQA and MMLU-Pro."""

from hashlib import sha256
from random import Random
from typing import Any

import msgspec

from apriel_mcore.config.schema.layouts import Gpqa, MmluPro
from apriel_mcore.data.item import Item, Unusable
from apriel_mcore.types import Message

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class _GpqaRow(msgspec.Struct, frozen=True):
    question: str = msgspec.field(name="Question")
    right: str = msgspec.field(name="Correct Answer")
    wrong_1: str = msgspec.field(name="Incorrect Answer 1")
    wrong_2: str = msgspec.field(name="Incorrect Answer 2")
    wrong_3: str = msgspec.field(name="Incorrect Answer 3")
    level: str | None = msgspec.field(name="High-level domain", default=None)


class _MmluProRow(msgspec.Struct, frozen=True):
    question: str
    options: list[str]
    answer: str
    category: str = ""


def gpqa(layout: Gpqa, row: Any) -> Item:
    """The four answers in an order that follows from the question alone: the published one always begins with
    the right one."""
    found = msgspec.convert(row, _GpqaRow)
    right, *wrong = (text.strip() for text in (found.right, found.wrong_1, found.wrong_2, found.wrong_3))
    options = [right, *wrong]
    if len(set(options)) != len(options) or not all(options):
        raise Unusable("no_answer", "the four answers are not different texts")
    Random(sha256(found.question.encode()).digest()).shuffle(options)
    return _item(found.question, options, _LETTERS[options.index(right)], found.level or "")


def mmlu_pro(layout: MmluPro, row: Any) -> Item:
    """Up to ten options in the published order; `N/A` fills the place of missing ones and is left out."""
    found = msgspec.convert(row, _MmluProRow)
    options = list(found.options)
    while options and options[-1].strip() in ("", "N/A"):
        options.pop()
    if found.answer not in _LETTERS[: len(options)] or len(found.answer) != 1:
        raise Unusable("no_answer", f"answer {found.answer!r} is none of the {len(options)} options")
    return _item(found.question, options, found.answer, found.category)


def _item(question: str, options: list[str], answer: str, level: str) -> Item:
    question = question.strip()
    if not question:
        raise Unusable("no_question", "the question is empty")
    if len(options) < 2:
        raise Unusable("no_answer", f"{len(options)} options")
    shown = "\n".join(f"{letter}. {option}" for letter, option in zip(_LETTERS, options, strict=False))
    return Item(
        messages=(Message("user", f"{question}\n\n{shown}"),),
        verifier="choice",
        reference={"answer": answer, "num_options": len(options), "gold": f"\\boxed{{{answer}}}"},
        split_key=" ".join(question.split()),
        level=level,
    )
