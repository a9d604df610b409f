"""What does a source of problems yield? An Item: a question and its judge, before it is rendered."""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import msgspec

from apriel_mcore.errors import InputError
from apriel_mcore.types import Message

type Tool = dict[str, Any]


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """A question with its gold answer; data/problems.py turns it into a Problem.

    Generated items hold a completion that solves them in `reference["gold"]`.
    """

    messages: tuple[Message, ...]
    verifier: str
    reference: dict[str, Any]
    split_key: str
    """Content that train and held-out parts must not share: paraphrases have the same key."""
    tools: tuple[Tool, ...] = ()
    """Functions that the prompt offers, as JSON Schema; for the chat template."""
    level: str = ""
    """Difficulty or subject as the data set states it; for reports."""


class Unusable(Exception):
    """A row of a collected data set that no problem can be made of; `reason` is one word to count by."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class Shot(msgspec.Struct, frozen=True):
    """A solved example."""

    question: str
    answer: str


def conversation(shots: Sequence[Shot], question: str) -> tuple[Message, ...]:
    """Example turns, then the question."""
    turns = [
        message
        for shot in shots
        for message in (Message("user", shot.question), Message("assistant", shot.answer))
    ]
    return (*turns, Message("user", question))


def evenly[T](candidates: Sequence[T], label: Callable[[T], str], size: int, rng: Random) -> list[T]:
    """`size` candidates in random order, each label as often as any other where there are enough of it.

    Labels take turns; one that runs out leaves its turns to the rest. Equal shares are what keeps a
    constant answer from paying. InputError when there are fewer than `size`.
    """
    if len(candidates) < size:
        raise InputError(f"size = {size} exceeds the {len(candidates)} distinct items there are; lower it")
    piles: dict[str, list[T]] = {}
    for candidate in rng.sample(candidates, len(candidates)):
        piles.setdefault(label(candidate), []).append(candidate)
    chosen: list[T] = []
    while len(chosen) < size:
        for pile in sorted(piles.values(), key=len):
            if pile and len(chosen) < size:
                chosen.append(pile.pop())
    return rng.sample(chosen, len(chosen))
