"""Which domain next, if domains are drawn at random? The rules that the deficit rule is compared with.

`static` draws with the targets w. `paper` (arXiv 2604.02007) draws with p proportional to w * alpha, where
alpha = clip(w / completed share, 0.1, 10): since the start, over rollouts that completed, kept or not.
"""

import random
from collections.abc import Sequence
from typing import Literal

MIN_COMPLETED = 50
"""Rollouts that must have completed before `paper` adjusts anything."""
MIN_ALPHA, MAX_ALPHA = 0.1, 10.0


def paper_chances(weights_D: Sequence[float], completed_D: Sequence[int]) -> list[float]:
    """p of the paper's rule, not normalised. `completed_D` counts rollouts."""
    total = sum(completed_D)
    if total < MIN_COMPLETED:
        return list(weights_D)
    chances_D: list[float] = []
    for weight, completed in zip(weights_D, completed_D, strict=True):
        alpha = MAX_ALPHA
        if completed > 0:
            alpha = max(MIN_ALPHA, min(MAX_ALPHA, weight / (completed / total)))
        chances_D.append(weight * alpha)
    return chances_D


class DomainDraws:
    """Seeded random picks of a domain; one number of the stream per pick."""

    def __init__(self, rule: Literal["paper", "static"], *, seed: int) -> None:
        self._rule = rule
        self._random = random.Random(seed)

    def pick(
        self, weights_D: Sequence[float], completed_D: Sequence[int], open_domains: Sequence[int]
    ) -> int:
        """One of the open domains (at least one), with the rule's chances among them."""
        chances_D = paper_chances(weights_D, completed_D) if self._rule == "paper" else weights_D
        threshold = self._random.random() * sum(chances_D[domain] for domain in open_domains)
        reached = 0.0
        for domain in open_domains:
            reached += chances_D[domain]
            if threshold < reached:
                return domain
        return open_domains[-1]  # rounding: the threshold may equal the sum

    def state(self) -> list[int]:
        """Words of the Mersenne twister."""
        return list(self._random.getstate()[1])

    def load(self, words: Sequence[int]) -> None:
        """Continue the stream where `state` was taken."""
        version, _, gauss = self._random.getstate()
        self._random.setstate((version, tuple(words), gauss))
