"""One-digit sums and differences: "3 + 4" after examples, else "What is 3 + 4? Reply with ..." """

from itertools import product
from random import Random
from typing import Literal

import msgspec

from apriel_mcore.config.schema import TemplateSource
from apriel_mcore.data.item import Item, Shot, conversation, evenly
from apriel_mcore.errors import InputError

DIGITS = range(1, 10)
MAX_SHOTS = 2
AFTER_EXAMPLES = ("{}", "{} =", "{} = ?")
"""The examples say the rest."""
ALONE = (
    "What is {}? Reply with only the number.",
    "What does {} equal? Reply with only the number.",
    "How much is {}? Reply with only the number.",
)


class _Term(msgspec.Struct, frozen=True):
    """`left sign right`, with `right` and the other operand or the result of one digit."""

    left: int
    sign: Literal["+", "-"]
    right: int

    @property
    def value(self) -> int:
        return self.left + self.right if self.sign == "+" else self.left - self.right

    @property
    def key(self) -> str:
        """3 + 4 and 4 + 3 are one piece of content."""
        swap = self.sign == "+" and self.left > self.right
        return str(_Term(self.right, "+", self.left) if swap else self)

    def __str__(self) -> str:
        return f"{self.left} {self.sign} {self.right}"


TERMS = tuple(term for a, b in product(DIGITS, DIGITS) for term in (_Term(a, "+", b), _Term(a + b, "-", b)))


def items(source: TemplateSource) -> list[Item]:
    """Problems of `verify/math`, results from 1 to 18 in equal parts as far as there are enough.

    Examples are neighbours: one operand is changed by one or two. That makes the right answer likely
    enough to be sampled by a small model. InputError for more examples than every term has neighbours.
    """
    if source.shots > MAX_SHOTS:
        raise InputError(f"shots = {source.shots}: the sums template has {MAX_SHOTS} examples")
    rng = Random(f"sums {source.seed}")
    phrasings = AFTER_EXAMPLES if source.shots else ALONE
    candidates = [(term, phrasing) for term in TERMS for phrasing in phrasings]
    chosen = evenly(candidates, lambda candidate: str(candidate[0].value), source.size, rng)
    return [_item(term, phrasing, rng.sample(_neighbours(term), source.shots)) for term, phrasing in chosen]


def _neighbours(term: _Term) -> list[_Term]:
    """Terms with one operand changed a little: never the same result, at least MAX_SHOTS of them."""
    steps = ((1, 0), (-1, 0), (0, 1), (0, -1), (2, 0), (-2, 0))
    near = [_Term(term.left + left, term.sign, term.right + right) for left, right in steps]
    return [other for other in near if other in TERMS]


def _item(term: _Term, phrasing: str, shown: list[_Term]) -> Item:
    shots = [Shot(phrasing.format(other), str(other.value)) for other in shown]
    return Item(
        messages=conversation(shots, phrasing.format(term)),
        verifier="math",
        reference={"answer": str(term.value), "format": "number", "gold": str(term.value)},
        split_key=term.key,
    )
