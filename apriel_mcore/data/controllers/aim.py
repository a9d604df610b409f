"""What does a target controller decide?"""

import msgspec


class Aim(msgspec.Struct, frozen=True):
    """What is aimed at from the next batch on."""

    stage: int
    """Index into the recipe's stages; 0 where there is one."""
    ratios: dict[str, float]
    """Target share of each domain."""
