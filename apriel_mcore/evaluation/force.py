r"""What does a model say when it is out of time? A forced final answer, in the form its judge reads.

    first b tokens + "</think>" + "The final answer is \boxed{" --a few more tokens--> judged

After s1's budget forcing (arXiv 2501.19393, section 3): thinking is ended for the model, which then only has
to write what it has found. The tokens of the final answer count on top of the budget.
"""

from collections.abc import Sequence

import msgspec

from apriel_mcore.types import Problem


class Opening(msgspec.Struct, frozen=True):
    """How the final answer is begun for the model, and how long its end may be."""

    text: str
    max_tokens: int


_OPENINGS = {
    "math": Opening("The final answer is \\boxed{", 64),
    "text": Opening("The final answer is \\boxed{", 64),
    "choice": Opening("The answer is \\boxed{", 8),
    "logic": Opening("<answer>", 128),
    "puzzles": Opening("", 512),  # each task has a form of its own: the prompt says which
    "calls": Opening("", 512),
    "code": Opening("```python\n", 2048),
    "instruction": Opening("", 2048),
}
_BARE = {"number": Opening("", 16), "whole": Opening("", 64)}
"""By the reference's format, where the whole answer must be the number or the text."""


def opening_of(problem: Problem, *, end_of_thinking: str, at_most: int) -> Opening:
    """The words that end the thinking and begin the answer, whose end may have `at_most` tokens."""
    found = _BARE.get(str(problem.reference.get("format")), _OPENINGS[problem.verifier])
    return Opening(f"\n{end_of_thinking}\n\n{found.text}", min(found.max_tokens, at_most))


def room_for(problems: Sequence[Problem], *, end_of_thinking: str, at_most: int) -> int:
    """Tokens that a forced final answer may add to a budget, at most; 0 where none is forced."""
    if not end_of_thinking:
        return 0
    openings = [opening_of(problem, end_of_thinking=end_of_thinking, at_most=at_most) for problem in problems]
    return max(opening.max_tokens + len(opening.text) for opening in openings)  # no token is shorter
