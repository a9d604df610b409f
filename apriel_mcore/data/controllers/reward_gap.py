"""Aim at the domains whose reward is farthest from its target (RuleReasoner, arXiv 2506.08672).

    r~[d] = a * r~[d] + (1 - a) * mean reward of d in the batch        first value: the mean itself
    v[d]  = max(0, target - r~[d])
    w[d]  = (exp(v[d] / t) + e) / sum          form "paper"
          = exp((v[d] + e) / t) / sum          form "code": e cancels

Unlike the published code, a domain that is absent from a batch keeps its running reward, and a reward of
exactly 0 is a reward.
"""

from collections.abc import Mapping
from math import exp
from typing import Any

import msgspec

from apriel_mcore.config.schema import RewardGapMixture
from apriel_mcore.data.controllers.aim import Aim


class RewardGapState(msgspec.Struct, frozen=True, kw_only=True):
    """What a checkpoint holds."""

    batches: int
    running: dict[str, float]
    ratios: dict[str, float]


class RewardGap:
    """controllers.Controller; domains of ratio 0 stay out of the mixture."""

    def __init__(self, ratios: Mapping[str, float], settings: RewardGapMixture) -> None:
        self.ratios = dict(ratios)
        self._settings = settings
        self._names = [name for name, ratio in ratios.items() if ratio > 0]
        self._running: dict[str, float] = {}
        self._batches = 0

    @property
    def aim(self) -> Aim:
        """The current ratios; there is one stage."""
        return Aim(0, self.ratios)

    def observe(self, rewards: Mapping[str, float]) -> None:
        """Move the running rewards; every `every` batches, also the ratios."""
        memory = self._settings.memory
        for name, reward in rewards.items():
            mean = 2 * reward - 1 if self._settings.scale == "signed" else reward
            self._running[name] = memory * self._running.get(name, mean) + (1 - memory) * mean
        self._batches += 1
        if self._batches % self._settings.every == 0 and all(name in self._running for name in self._names):
            self.ratios = self.ratios | self._weights()

    def state(self) -> dict[str, Any]:
        """Running rewards, ratios, and where in the period it is."""
        state = RewardGapState(batches=self._batches, running=self._running, ratios=self.ratios)
        return msgspec.to_builtins(state)

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue where the state was saved."""
        saved = msgspec.convert(state, RewardGapState)
        self._batches, self._running, self.ratios = saved.batches, saved.running, saved.ratios

    def _weights(self) -> dict[str, float]:
        target = self._settings.target_reward
        gaps = {name: max(0.0, target - self._running[name]) for name in self._names}
        largest = max(gaps.values())
        scores = {name: self._score(gap, largest) for name, gap in gaps.items()}
        total = sum(scores.values())
        return {name: score / total for name, score in scores.items()}

    def _score(self, gap: float, largest: float) -> float:
        """Divided by exp(largest / t), which cancels in the shares: no temperature overflows."""
        temperature = self._settings.temperature
        score = exp((gap - largest) / temperature)
        if self._settings.form == "paper":
            score += self._settings.epsilon * exp(-largest / temperature)
        return score
