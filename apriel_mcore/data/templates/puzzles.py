"""Puzzles of a reasoning-gym task, every gold answer as frequent as any other.

generated -> distinct -> gold doubtful? -> evenly by answer -> items
                              '------------------------------- unusable, with the reason
"""

from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from random import Random
from typing import Any, NamedTuple

import msgspec

from apriel_mcore.config.schema import PuzzleSource
from apriel_mcore.data.item import Item, Shot, Unusable, conversation, evenly
from apriel_mcore.data.templates.doubts import doubt
from apriel_mcore.errors import InputError
from apriel_mcore.verify.logic import check_task

OVERSAMPLE = 8
"""Items generated for each one kept where answers are few: the rarest answer needs enough of them."""

_MOST_SHOWN = 3
"""Different answers among the examples."""

type Entry = dict[str, Any]


def _syllogism(facts: dict[str, Any]) -> str:
    conclusion = facts["conclusion"]
    claim = conclusion[0].lower() + conclusion[1:]
    return f"{facts['premise1']}. {facts['premise2']}. Does it follow that {claim}? Yes or No"


def _letter_counting(facts: dict[str, Any]) -> str:
    return f'How many "{facts["target_letter"]}" are in "{" ".join(facts["span"])}"?'


SHORT = {"syllogism": _syllogism, "letter_counting": _letter_counting}
"""The same question in about two thirds of the tokens, from the entry's metadata."""


class _Made(NamedTuple):
    usable: list[Entry]
    unusable: list[tuple[str, Unusable]]


def items(source: PuzzleSource) -> list[Item]:
    """The items of `read`."""
    return [item for _, item in read(source) if isinstance(item, Item)]


def read(source: PuzzleSource) -> Iterator[tuple[str, Item | Unusable]]:
    """Exactly `source.size` items of `verify/logic`, the same for the same source, after the entries that
    were generated and are none; these have their number in the generator as their place.

    Answers too rare to have an equal share are left out. Examples are the shortest puzzles of their
    answer; which answers are shown, and in what order, is drawn anew for each item. InputError for an
    unknown or refused task, options that it does not take, or more items than it can make.
    """
    rng = Random(f"{source.task} {source.seed}")
    entries, unusable = _entries(source)
    yield from unusable
    examples = _examples(source.task, entries)
    if source.shots > len(examples):
        raise InputError(f"shots = {source.shots}: {source.task} has only {len(examples)} different answers")
    shown = {shot.question for shot in examples} if source.shots else set()
    asked = [entry for entry in entries if _question(source.task, entry) not in shown]
    chosen = evenly(_common(asked, source.size), _answer, source.size, rng)
    for entry in chosen:
        yield "", _item(source.task, entry, rng.sample(examples, source.shots))


def _entries(source: PuzzleSource) -> _Made:
    """Distinct entries: a few more than `size`, or OVERSAMPLE times that where answers or entries are few."""
    enough = source.size + source.size // 8 + _MOST_SHOWN
    made = _generate(source, enough)
    answers_are_many = len({_answer(entry) for entry in made.usable}) > enough // 2
    if answers_are_many and len(made.usable) >= source.size + _MOST_SHOWN:
        return made
    return _generate(source, OVERSAMPLE * enough)


def _generate(source: PuzzleSource, size: int) -> _Made:
    check_task(source.task)
    import reasoning_gym  # two seconds

    try:
        dataset = reasoning_gym.create_dataset(source.task, size=size, seed=source.seed, **source.options)
    except (ValueError, TypeError, AssertionError) as error:
        raise InputError(f"task = {source.task!r} with options {source.options}: {error}") from error
    entries = {entry["question"]: (number, _plain(dict(entry))) for number, entry in enumerate(dataset)}
    made = _Made([], [])
    for number, entry in entries.values():
        if unusable := doubt(source.task, entry):
            made.unusable.append((f"entry {number} of seed {source.seed}", unusable))
        else:
            made.usable.append(entry)
    return made


def _plain(entry: Entry) -> Entry:
    """Without the numpy scalars and fractions of some metadata: judges are asked in JSON."""
    return msgspec.to_builtins(entry, enc_hook=lambda n: str(n) if isinstance(n, Fraction) else n.item())


def _answer(entry: Entry) -> str:
    return entry["answer"]


def _common(entries: list[Entry], size: int) -> list[Entry]:
    """Entries of the most answers that can all have an equal share of `size`."""
    counts = Counter(_answer(entry) for entry in entries).most_common()
    share = [rank for rank, (_, count) in enumerate(counts, start=1) if rank * count >= size]
    kept = {answer for answer, _ in counts[: share[-1]]} if share else set(dict(counts))
    return [entry for entry in entries if _answer(entry) in kept]


def _examples(task: str, entries: list[Entry]) -> list[Shot]:
    """The shortest puzzle of each frequent answer: example turns are paid for at every prompt."""
    shortest: dict[str, Shot] = {}
    for entry in sorted(entries, key=lambda entry: len(entry["question"])):
        shortest.setdefault(_answer(entry), Shot(_question(task, entry), _answer(entry)))
    frequent = Counter(_answer(entry) for entry in entries).most_common(_MOST_SHOWN)
    return [shortest[answer] for answer, _ in frequent]


def _question(task: str, entry: Entry) -> str:
    return SHORT[task](entry["metadata"]) if task in SHORT else entry["question"]


def _item(task: str, entry: Entry, shots: list[Shot]) -> Item:
    question = _question(task, entry)
    return Item(
        messages=conversation(shots, question),
        verifier="logic",
        reference={"task": task, "entry": entry, "gold": _answer(entry)},
        split_key=question,
    )
