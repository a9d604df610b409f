"""Which tasks have golds that are wrong, or that another reading of the question contradicts?

    python -m tests.golds.recompute [NUM [TASK ...]]

NUM entries (50) of each task that can be worked out again, or of these, without those that are set aside.
Tasks that are denied for another reason, and those that ask for a rule to be guessed, are not asked.
"""

import sys
from collections.abc import Callable, Iterator
from typing import Any

import reasoning_gym

from apriel_mcore.data.templates.doubts import doubt
from apriel_mcore.verify.logic import DENIED, WRONG_GOLDS
from tests.golds import grids, puzzles, sums, words

CHECKS: dict[str, Callable[[str, str], bool]] = sums.CHECKS | words.CHECKS | grids.CHECKS | puzzles.CHECKS
"""From a question and its gold."""

OF_FACTS: dict[str, Callable[[dict[str, Any], str], bool]] = puzzles.OF_FACTS
"""From an entry's metadata, where the question is a drawing or prose."""

TASKS = sorted(task for task in CHECKS | OF_FACTS if DENIED.get(task, WRONG_GOLDS).startswith(WRONG_GOLDS))


def is_right(task: str, entry: dict[str, Any]) -> bool:
    if task in OF_FACTS:
        return OF_FACTS[task](entry["metadata"], entry["answer"])
    return CHECKS[task](entry["question"], entry["answer"])


def entries(task: str, num: int, seed: int) -> Iterator[dict[str, Any]]:
    """Of the first `num`, those that the product would not set aside."""
    made = reasoning_gym.create_dataset(task, size=num, seed=seed)
    return (entry for entry in made if doubt(task, entry) is None)


def main(num: int, tasks: list[str]) -> None:
    for task in tasks or TASKS:
        asked = list(entries(task, num, seed=0))
        wrong = [entry for entry in asked if not is_right(task, entry)]
        state = "denied" if task in DENIED else ""
        print(f"{task:24} {len(asked):5} asked {len(wrong):5} wrong  {state}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50, sys.argv[2:])
