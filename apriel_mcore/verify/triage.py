"""Which answers may take long? They get workers of their own and at most half of the others.

Nothing is refused here: an answer that looks costly and is not loses only its place in the queue.
"""

import re
from collections import OrderedDict

from apriel_mcore.types import Problem
from apriel_mcore.verify.answer import final_answer

SLOW_S = 0.25
"""A job beyond this makes its problem a slow one, until one of its jobs is quick again."""
_REMEMBERED = 10_000
_TAIL = 4000
"""Characters at the end of an answer that are looked at; the box of an honest one is there."""

_COSTLY_MATH = re.compile(
    r"!"  # factorials
    r"|\\(?:d?binom|sum|prod|int|lim)"
    r"|\^\s*+\{[^{}^]*+\^"  # towers
    r"|\^\s*+(?:\{\s*+)?\d{3}"
    r"|\d{40}"
    r"|[({\[]{12}"
)


class Triage:
    """Looks at the text, and remembers which problems were slow."""

    def __init__(self) -> None:
        self._slow: OrderedDict[str, None] = OrderedDict()

    def is_costly(self, problem: Problem, text: str) -> bool:
        """Whether the answer belongs to the half that may be slow."""
        if problem.id in self._slow:
            return True
        return problem.verifier == "math" and bool(_COSTLY_MATH.search(final_answer(text)[-_TAIL:]))

    def took(self, problem: Problem, seconds: float) -> None:
        """Learn from a job, killed ones included."""
        if seconds < SLOW_S:
            self._slow.pop(problem.id, None)
            return
        self._slow[problem.id] = None
        self._slow.move_to_end(problem.id)
        if len(self._slow) > _REMEMBERED:
            self._slow.popitem(last=False)
