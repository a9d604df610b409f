"""The recipe's ratios, from first to last."""

from collections.abc import Mapping
from typing import Any

from apriel_mcore.data.controllers.aim import Aim


class Constant:
    """controllers.Controller that never moves."""

    def __init__(self, ratios: Mapping[str, float]) -> None:
        self.aim = Aim(0, dict(ratios))

    def observe(self, rewards: Mapping[str, float]) -> None:
        """Nothing is learnt from rewards."""

    def state(self) -> dict[str, Any]:
        """There is none."""
        return {}

    def load(self, state: Mapping[str, Any]) -> None:
        """There is none."""
