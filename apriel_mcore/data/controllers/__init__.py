"""Which mixture is aimed at after this step? One file for each way to decide it.

    batch composed --observe(mean task rewards)--> controller --aim--> DomainScheduler.set_ratios, stage

A controller never picks a problem: it says what share each domain should have, and the sampler delivers
exactly that. It sees what is composed for training, in order, so a journal that is replayed moves it alike.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from apriel_mcore.config.schema import ConstantMixture, RewardGapMixture, RunConfig, StagedMixture
from apriel_mcore.data.controllers.aim import Aim
from apriel_mcore.data.controllers.constant import Constant
from apriel_mcore.data.controllers.reward_gap import RewardGap
from apriel_mcore.data.controllers.stages import Stages

__all__ = ["Aim", "Controller", "controller_of"]


class Controller(Protocol):
    """What the feed needs of a target controller."""

    @property
    def aim(self) -> Aim:
        """Stage and target shares from the next batch on."""
        ...

    def observe(self, rewards: Mapping[str, float]) -> None:
        """A batch was composed; the mean task reward of each domain in it."""
        ...

    def state(self) -> dict[str, Any]:
        """For the checkpoint, in plain JSON types."""
        ...

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue where the state was saved."""
        ...


def controller_of(config: RunConfig) -> Controller:
    """The recipe's controller, before the first step."""
    match config.mixture:
        case ConstantMixture():
            return Constant(config.ratios)
        case RewardGapMixture():
            return RewardGap(config.ratios, config.mixture)
        case StagedMixture():
            stages = list(config.mixture.stages.values())
            return Stages(stages, [stage.ratios for stage in config.stages()])
