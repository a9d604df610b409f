"""How long are answers, how many groups survive, and what does a batch of them cost the trainer?"""

import math
from collections.abc import Callable, Mapping
from statistics import NormalDist
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

ROW_FILL = 0.95
"""Of packed rows; quickstart-sized steps fill less."""
MOST_SIGMA = 3.0
"""More is no distribution of answers: their mean would be 90 times their median."""
_BISECTIONS = 60


class DomainLengths(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Answers of one domain: lognormal, cut at the budget."""

    mean: Annotated[float, Meta(ge=1, le=1e6)]
    """Tokens, before the cut."""
    sigma: Annotated[float, Meta(gt=0, le=MOST_SIGMA)]
    """Of the logarithm: the skew."""
    keep: Annotated[float, Meta(ge=0.01, le=1)]
    """Share of groups with a learning signal."""
    prompt: Annotated[float, Meta(ge=0, le=1e6)] = 300.0


# Nobody published lengths by domain of this recipe: chosen for a mean of some 5K of 16K tokens.
ASSUMED: dict[str, DomainLengths] = {
    "math": DomainLengths(mean=7000, sigma=0.8, keep=0.55),
    "code": DomainLengths(mean=6500, sigma=0.8, keep=0.45),
    "logic": DomainLengths(mean=4000, sigma=0.8, keep=0.60),
    "instruction": DomainLengths(mean=1500, sigma=0.8, keep=0.85),
    "calls": DomainLengths(mean=1000, sigma=0.8, keep=0.30),
}


def cut_mean(one: DomainLengths, *, budget: int) -> float:
    """Tokens of an answer, after the cut."""
    normal = NormalDist(math.log(one.mean) - one.sigma**2 / 2, one.sigma)
    whole = one.mean * normal.cdf(math.log(budget) - one.sigma**2)
    return whole + budget * (1 - normal.cdf(math.log(budget)))


def with_sigma(one: DomainLengths, sigma: float, *, budget: int) -> DomainLengths:
    """Another spread; the mean before the cut moves so that the one after it stays."""
    wanted = cut_mean(one, budget=budget)
    low, high = math.log(wanted), math.log(wanted) + 40.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        tried = msgspec.structs.replace(one, mean=math.exp(middle), sigma=sigma)
        low, high = (middle, high) if cut_mean(tried, budget=budget) < wanted else (low, middle)
    return msgspec.structs.replace(one, mean=math.exp(high), sigma=sigma)


class Answers:
    """Draws of lengths and verdicts; the trainer's time is the caller's function of a step's lengths."""

    def __init__(
        self,
        lengths: Mapping[str, DomainLengths],
        *,
        group_size: int,
        budget: int,
        train_seconds: Callable[[list[float]], float],
        seed: int,
    ) -> None:
        self._lengths = lengths
        self._group_size = group_size
        self._budget = budget
        self._train_seconds = train_seconds
        self._random = np.random.default_rng(seed)

    def rollouts(self, domain: str) -> list[float]:
        """Tokens of each answer."""
        one = self._lengths[domain]
        mu = math.log(one.mean) - one.sigma**2 / 2
        drawn = self._random.lognormal(mu, one.sigma, self._group_size)
        return np.clip(np.ceil(drawn), 1, self._budget).tolist()

    def keeps(self, domain: str) -> bool:
        """By the domain's rate."""
        return self._random.random() < self._lengths[domain].keep

    def train_seconds(self, works: list[list[float]]) -> float:
        """Of all answers of a batch."""
        return self._train_seconds([tokens for group in works for tokens in group])


class Mean(msgspec.Struct, frozen=True, kw_only=True):
    """A trained step and what had to be generated for it, in expectation."""

    trained_tokens: float
    generated_tokens: float
    """Of kept and filtered groups."""
    rollout: float
    """Tokens of one generated answer."""
    context: float
    """sum L^2 / sum L of trained sequences."""


def mean_step(
    lengths: Mapping[str, DomainLengths], ratios: Mapping[str, float], *, rollouts: int, budget: int
) -> Mean:
    """By sampling: squares of what is cut have no closed form worth its lines."""
    total = sum(ratios.values())
    random = np.random.default_rng(0)
    trained = generated = squares = asked = 0.0
    for name, ratio in ratios.items():
        one = lengths[name]
        drawn = random.lognormal(math.log(one.mean) - one.sigma**2 / 2, one.sigma, 4000).clip(1, budget)
        share = ratio / total * rollouts
        trained += share * (float(drawn.mean()) + one.prompt)
        squares += share * float(((drawn + one.prompt) ** 2).mean())
        asked += share / one.keep
        generated += share / one.keep * float(drawn.mean())
    return Mean(
        trained_tokens=trained,
        generated_tokens=generated,
        rollout=generated / asked,
        context=squares / trained,
    )
