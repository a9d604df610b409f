"""One-digit sums and differences: "What is 3 + 4? Reply with only the number." """

from itertools import product
from random import Random

import msgspec

from apriel_mcore.config.schema import TemplateSource
from apriel_mcore.data.item import Item, Shot, conversation, evenly

DIGITS = range(1, 10)
PHRASINGS = (
    "What is {}? Reply with only the number.",
    "What does {} equal? Reply with only the number.",
    "How much is {}? Reply with only the number.",
)


class _Term(msgspec.Struct, frozen=True):
    text: str
    value: int
    key: str
    """3 + 4 and 4 + 3 are one piece of content."""


def items(source: TemplateSource) -> list[Item]:
    """Problems of `verify/math`, results from 1 to 18 in equal parts as far as there are enough."""
    rng = Random(f"sums {source.seed}")
    candidates = [(term, phrasing) for term in _terms() for phrasing in PHRASINGS]
    chosen = evenly(candidates, lambda candidate: str(candidate[0].value), source.size, rng)
    return [_item(term, phrasing, source.shots, rng) for term, phrasing in chosen]


def _terms() -> list[_Term]:
    sums = [_Term(f"{a} + {b}", a + b, f"{min(a, b)} + {max(a, b)}") for a, b in product(DIGITS, DIGITS)]
    differences = [_Term(f"{a + b} - {b}", a, f"{a + b} - {b}") for a, b in product(DIGITS, DIGITS)]
    return sums + differences


def _item(term: _Term, phrasing: str, num_shots: int, rng: Random) -> Item:
    """Examples share the phrasing and never the content or the result."""
    others = [other for other in _terms() if other.value != term.value and other.key != term.key]
    shots = [
        Shot(phrasing.format(other.text), str(other.value))
        for other in evenly(others, lambda other: str(other.value), num_shots, rng)
    ]
    return Item(
        messages=conversation(shots, phrasing.format(term.text)),
        verifier="math",
        reference={"answer": str(term.value), "format": "number", "gold": str(term.value)},
        split_key=term.key,
    )
