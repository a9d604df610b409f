"""Does an answer solve a production puzzle? All or nothing."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from apriel_mcore.errors import InputError, did_you_mean
from apriel_mcore.types import Verdict
from apriel_mcore.verify.alarm import OutOfTime, time_limit
from apriel_mcore.verify.answer import final_answer
from apriel_mcore.verify.outcome import CORRECT, NO_ANSWER, failed, read_reference
from apriel_mcore.verify.puzzles.reading import Unreadable
from apriel_mcore.verify.puzzles.table import KINDS, Kind

MAX_CHARS = 20_000
SOFT_LIMIT_S = 1.0


class Reference(msgspec.Struct, frozen=True):
    """A puzzle: what the task's check needs to know (see table.py), by the names of the data."""

    task: Annotated[str, Meta(min_length=1)]
    facts: dict[str, Any]


def verify(reference: dict[str, Any], text: str) -> Verdict:
    """The verdict on one answer; binary. InputError for an unknown task or facts of another form."""
    kind, facts = _read(reference)
    answer = final_answer(text)
    if not answer:
        return NO_ANSWER
    if len(answer) > MAX_CHARS:
        return failed("unparsable", f"longer than {MAX_CHARS} characters")
    try:
        with time_limit(SOFT_LIMIT_S):
            solved = kind.check(facts, answer)
    except Unreadable as reason:
        return failed("unparsable", str(reason))
    except OutOfTime:
        return failed("unparsable", f"took more than {SOFT_LIMIT_S:g} s of CPU")
    return CORRECT if solved else failed("wrong", "")


def self_check(reference: dict[str, Any]) -> None:
    """InputError unless the task is known and its facts are of its form."""
    _read(reference)


def warm_up() -> None:
    """Imports what compares formulas: longer than an answer may take."""
    from apriel_mcore.verify import math

    math.warm_up()


def check_task(task: str) -> None:
    """InputError for a task without a check."""
    if task not in KINDS:
        raise InputError(f"no check for puzzle {task!r}; {did_you_mean(task, KINDS)}")


def gold_text(task: str, facts: dict[str, Any]) -> str:
    """The row's answer as a model would write it; empty where the row has none."""
    check_task(task)
    kind = KINDS[task]
    value = facts.get(kind.gold) or ""
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return kind.wrap.format(text) if text.strip() else ""


def _read(reference: dict[str, Any]) -> tuple[Kind, msgspec.Struct]:
    puzzle = read_reference(reference, Reference)
    check_task(puzzle.task)
    kind = KINDS[puzzle.task]
    return kind, read_reference(puzzle.facts, kind.facts)
