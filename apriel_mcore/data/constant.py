"""How well does a policy do that gives every problem of a domain the same answer?

A reward curve means little until it is above this: few-valued answers pay for a lucky constant.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence

from apriel_mcore.types import Problem
from apriel_mcore.verify.instruction import judge

MAX_TEXTS = 32
"""Constant texts tried on an instruction domain: each is checked on every problem."""


def best_constants(problems: Mapping[str, Sequence[Problem]]) -> dict[str, float]:
    """`best_constant` of each domain."""
    return {domain: best_constant(members) for domain, members in problems.items()}


def best_constant(problems: Sequence[Problem]) -> float:
    """Share of problems that the best single answer solves in full (0 for no problems).

    math, logic, puzzles and calls: the most frequent gold answer. code: the most frequent function to be
    defined, as if one definition solved all that ask for its name (an upper bound). instruction: the real
    checkers on the gold texts, at most MAX_TEXTS of them (a lower bound; 0 where no gold text is known).
    """
    if not problems:
        return 0.0
    instruction = [problem for problem in problems if problem.verifier == "instruction"]
    others = Counter(_answer(problem) for problem in problems if problem.verifier != "instruction")
    most = max(others.values(), default=0)
    return max(most, _most_satisfied(instruction)) / len(problems)


def _answer(problem: Problem) -> str:
    """What two problems have in common when one answer solves both."""
    reference = problem.reference
    if problem.verifier == "logic":
        answer = reference["entry"]["answer"]
    elif problem.verifier == "puzzles":
        answer = reference.get("gold") or reference["facts"]
    elif problem.verifier == "code":
        answer = reference.get("entry_point") or [test["expected"] for test in reference["tests"]]
    else:
        answer = reference["answer"]
    return f"{problem.verifier} {json.dumps(answer, sort_keys=True)}"


def _most_satisfied(problems: Sequence[Problem]) -> int:
    golds = dict.fromkeys(problem.reference.get("gold", "") for problem in problems)
    texts = [text for text in golds if text][:MAX_TEXTS]
    return max((_num_satisfied(text, problems) for text in texts), default=0)


def _num_satisfied(text: str, problems: Sequence[Problem]) -> int:
    return sum(judge.verify(problem.reference, text).success for problem in problems)
