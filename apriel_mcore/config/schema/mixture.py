"""Which mixture is aimed at, and how does it move? The sampler delivers it exactly, whatever it is."""

from typing import Literal

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
    """Keeps every domain in the mixture (form "paper"); without effect in form "code"."""
    form: Literal["paper", "code"] = "paper"
    """Of the softmax: (exp(v / t) + e) / sum, or exp((v + e) / t) / sum as in the published code."""
    scale: Literal["unit", "signed"] = "unit"
    """Rewards as they are, in [0, 1], or as 2R - 1, for which the published temperatures were chosen."""


MixtureTargets = ConstantMixture | RewardGapMixture
