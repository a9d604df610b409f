"""Which mixture is aimed at, and how does it move? The sampler delivers it exactly, whatever it is."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from apriel_mcore.config.schema.fields import Beta, NonNegative, Positive, PositiveFloat, Section


class ConstantMixture(Section, frozen=True, kw_only=True, tag_field="kind", tag="constant"):
    """The ratios of the domains, from first to last."""


class RewardGapMixture(Section, frozen=True, kw_only=True, tag_field="kind", tag="reward_gap"):
    """More of the domains whose reward is farthest from its target (RuleReasoner, arXiv 2506.08672).

    The domains' ratios hold until every domain has been trained on; a ratio of 0 stays 0.
    """

    every: Positive = 8
    """Optimizer steps between two changes; frequent changes make ready groups stale."""
    memory: Beta = 0.5
    """Weight of the past in a domain's running reward."""
    target_reward: float = 1.0
    """In units of `scale`."""
    temperature: PositiveFloat = 0.5
    epsilon: NonNegative = 0.1
    """Added to each exp(gap / temperature) before they become shares (form "paper"; "code": no effect).

    It lifts the shares of small gaps, but keeps no domain in the mixture where the temperature is far below
    the gaps: there the largest gap takes all.
    """
    form: Literal["paper", "code"] = "paper"
    """Of the softmax: (exp(v / t) + e) / sum, or exp((v + e) / t) / sum as in the published code."""
    scale: Literal["unit", "signed"] = "unit"
    """Rewards as they are, in [0, 1], or as 2R - 1, for which the published temperatures were chosen."""


class Stage(Section, frozen=True, kw_only=True):
    """A stretch of a staged run; over when it has had its steps, or its reward if that comes first."""

    steps: Positive
    until_reward: float | Literal["off"] = "off"
    """Mean task reward, of the last `reward_window` batches, that ends the stage."""
    reward_window: Positive = 8
    settings: dict[str, Any] = msgspec.field(default_factory=dict)
    """What differs from the recipe, as it would stand there: domains.math.ratio = 1.0"""


class StagedMixture(Section, frozen=True, kw_only=True, tag_field="kind", tag="stages"):
    """One stage after the other, in the order of the recipe (Nemotron-Cascade, arXiv 2512.13607)."""

    stages: Annotated[dict[str, Stage], Meta(min_length=1)]


MixtureTargets = ConstantMixture | RewardGapMixture | StagedMixture
