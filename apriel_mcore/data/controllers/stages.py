"""One stage after the other, each with its own mixture and budgets (Nemotron-Cascade, arXiv 2512.13607)."""

from collections import deque
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import msgspec

from apriel_mcore.config.schema import Stage
from apriel_mcore.data.controllers.aim import Aim


class StagesState(msgspec.Struct, frozen=True, kw_only=True):
    """What a checkpoint holds."""

    stage: int
    steps: int
    rewards: list[float]


class Stages:
    """controllers.Controller; the last stage lasts to the end of the run."""

    def __init__(self, stages: Sequence[Stage], ratios_of: Sequence[Mapping[str, float]]) -> None:
        """`ratios_of` are the targets of each stage."""
        self._stages = stages
        self._ratios_of = [dict(ratios) for ratios in ratios_of]
        self._enter(0)

    @property
    def aim(self) -> Aim:
        """The current stage and its targets."""
        return Aim(self._stage, self._ratios_of[self._stage])

    def observe(self, rewards: Mapping[str, float]) -> None:
        """Count a step of the stage; enter the next one when this one has had its steps or its reward."""
        self._steps += 1
        self._rewards.append(fmean(rewards.values()))
        if self._is_over() and self._stage + 1 < len(self._stages):
            self._enter(self._stage + 1)

    def state(self) -> dict[str, Any]:
        """Where in which stage."""
        state = StagesState(stage=self._stage, steps=self._steps, rewards=list(self._rewards))
        return msgspec.to_builtins(state)

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue where the state was saved."""
        saved = msgspec.convert(state, StagesState)
        self._enter(saved.stage)
        self._steps = saved.steps
        self._rewards.extend(saved.rewards)

    def _enter(self, stage: int) -> None:
        self._stage, self._steps = stage, 0
        self._rewards: deque[float] = deque(maxlen=self._stages[stage].reward_window)

    def _is_over(self) -> bool:
        stage = self._stages[self._stage]
        if self._steps >= stage.steps:
            return True
        full = len(self._rewards) == stage.reward_window
        return stage.until_reward != "off" and full and fmean(self._rewards) >= stage.until_reward
