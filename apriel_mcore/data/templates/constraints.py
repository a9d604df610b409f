"""Short writing tasks under IFEval constraints: 'Write a sentence with the word "river". No commas.'"""

from itertools import combinations
from random import Random
from typing import Any

import msgspec

from apriel_mcore.config.schema import TemplateSource
from apriel_mcore.data.item import Item, Shot, conversation, evenly
from apriel_mcore.errors import InputError

_NOUNS = """
apple river mountain window garden kitchen summer winter doctor teacher bicycle train bridge island
forest candle mirror pencil library market castle village rabbit horse tiger eagle spider whale
dragon robot planet rocket violin piano guitar letter poem story movie camera clock chair table
blanket pillow sweater jacket basket bottle bread cheese honey coffee lemon potato tomato pepper
sugar thunder snow storm desert ocean beach harbor ship anchor lantern hammer ladder engine farmer
baker painter singer sailor soldier king queen wizard pirate
"""
WORDS = tuple(_NOUNS.split())
EXAMPLE_WORDS = ("house", "dog", "school")


class _Constraint(msgspec.Struct, frozen=True):
    """What is asked, in words and as the checker's kind and arguments."""

    label: str
    request: str
    kind: str
    args: dict[str, Any]


CONSTRAINTS = (
    _Constraint("no_comma", "Do not use any commas.", "punctuation:no_comma", {}),
    _Constraint(
        "short",
        "Use fewer than 12 words.",
        "length_constraints:number_words",
        {"relation": "less than", "num_words": 12},
    ),
    _Constraint("because", 'Use "because".', "keywords:existence", {"keywords": ["because"]}),
    _Constraint("end", 'End with "The end."', "startend:end_checker", {"end_phrase": "The end."}),
)
_COMBINATIONS = [*combinations(CONSTRAINTS, 1), *combinations(CONSTRAINTS, 2)]


def items(source: TemplateSource) -> list[Item]:
    """Problems of `verify/instruction`: one or two constraints and a word that must occur.

    The word differs from problem to problem: without it one text would satisfy every constraint here.
    Held-out problems have words that training never asks for. Combinations come in equal parts.
    Examples show the same constraints with other words, which are never asked for.
    """
    if source.shots > len(EXAMPLE_WORDS):
        raise InputError(
            f"shots = {source.shots}: the constraints template has {len(EXAMPLE_WORDS)} examples"
        )
    rng = Random(f"constraints {source.seed}")
    candidates = [(word, chosen) for word in WORDS for chosen in _COMBINATIONS]
    chosen = evenly(candidates, lambda candidate: _label(candidate[1]), source.size, rng)
    return [_item(word, constraints, source.shots) for word, constraints in chosen]


def _label(constraints: tuple[_Constraint, ...]) -> str:
    return "+".join(constraint.label for constraint in constraints)


def _question(word: str, constraints: tuple[_Constraint, ...]) -> str:
    requests = " ".join(constraint.request for constraint in constraints)
    return f'Write one sentence with the word "{word}". {requests}'


def _solution(word: str, constraints: tuple[_Constraint, ...]) -> str:
    """A text that keeps these constraints and, where it can, no other one."""
    asked = {constraint.label for constraint in constraints}
    opening = "The" if "no_comma" in asked else "Once, the"
    middle = "" if "short" in asked else " all day and all night for all the town to see"
    reason = " because it was old" if "because" in asked else ""
    closing = " The end." if "end" in asked else ""
    return f"{opening} {word} was there{middle}{reason}.{closing}"


def _item(word: str, constraints: tuple[_Constraint, ...], num_shots: int) -> Item:
    topic = _Constraint("word", "", "keywords:existence", {"keywords": [word]})
    shots = [
        Shot(_question(other, constraints), _solution(other, constraints))
        for other in EXAMPLE_WORDS[:num_shots]
    ]
    return Item(
        messages=conversation(shots, _question(word, constraints)),
        verifier="instruction",
        reference={
            "instructions": [{"kind": each.kind, "args": each.args} for each in (topic, *constraints)],
            "gold": _solution(word, constraints),
        },
        split_key=word,
    )
