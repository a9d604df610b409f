"""From verdict to reward, advantage and loss."""

from typing import Annotated, Literal

from msgspec import Meta

from apriel_mcore.config.schema.fields import Fraction, NonNegative, Positive, PositiveFloat, Section


class NoLengthPenalty(Section, frozen=True, kw_only=True, tag_field="kind", tag="none"):
    """Task reward alone."""


class StandardLengthPenalty(Section, frozen=True, kw_only=True, tag_field="kind", tag="standard"):
    """DAPO's soft overlong penalty over the last `buffer` tokens of the budget."""

    buffer: Positive = 2000


class DifficultyAwareLengthPenalty(
    Section, frozen=True, kw_only=True, tag_field="kind", tag="difficulty_aware"
):
    """The penalty scaled by solve_rate^gamma for successes and by failure_scale for failures."""

    buffer: Positive = 2000
    gamma: NonNegative = 1.0
    failure_scale: Fraction = 1.0


class NoReferenceReward(Section, frozen=True, kw_only=True, tag_field="kind", tag="none"):
    """The verdict alone."""


class NoDeviation(Section, frozen=True, kw_only=True, tag_field="kind", tag="none"):
    """Other answers than the reference earn nothing of their own."""


class BoundedDeviation(Section, frozen=True, kw_only=True, tag_field="kind", tag="bounded"):
    """A little for answers that deviate from the reference within a bound (DARL, arXiv 2601.14700).

    The deviation is by how much the policy finds its own answer less likely than the reference. It costs a
    second prefill a rollout, of its own answer, where that is not the reference.
    """

    weight: PositiveFloat = 0.01
    """Of the deviation: the paper's beta."""
    gamma: PositiveFloat = 8.0
    """The bound is the probability of the reference over this: wider where the policy knows the reference."""


Deviation = NoDeviation | BoundedDeviation


class ReferenceProbability(Section, frozen=True, kw_only=True, tag_field="kind", tag="probability"):
    """How likely the policy finds the reference answer after its own reasoning (RLPR, arXiv 2506.18254).

    It costs one prefill of prompt, reasoning and reference a rollout, on the rollout servers.
    """

    after: Annotated[str, Meta(min_length=1)] = "\\boxed{"
    """Where in a rollout its answer begins: after the last place where this stands. Without it: reward 0."""
    weight: PositiveFloat = 1.0
    verdict_weight: NonNegative = 0.0
    """Of the reward for the verdict, which is added; 0: no verifier has a say."""
    debias: bool = True
    """Take off what the reference has without any reasoning, and what is below 0."""
    deviation: Deviation = NoDeviation()


ReferenceReward = NoReferenceReward | ReferenceProbability

LengthPenalty = NoLengthPenalty | StandardLengthPenalty | DifficultyAwareLengthPenalty


class Reward(Section, frozen=True, kw_only=True):
    """From verdict to number."""

    table: Literal["success_and_format", "pure_success", "success", "base"] = "success_and_format"
    length: LengthPenalty


class Advantage(Section, frozen=True, kw_only=True):
    """From rewards of a group to advantages."""

    baseline: Literal["leave_one_out", "group_mean"] = "leave_one_out"
    divide_by_std: bool = False
    filter_on: Literal["shaped_reward", "task_reward", "off"] = "shaped_reward"
    """A group whose rewards of this kind are all equal carries no signal and is filtered."""
    min_std: NonNegative = 0.0
    """A group whose looked-at rewards have a smaller standard deviation is filtered too: for graded rewards,
    where all equal is rare (RLPR's filter, with a threshold that stays)."""
    mask_truncated: bool = False
    """Overlong filtering: truncated rollouts shift the baseline but give no gradient."""


class Loss(Section, frozen=True, kw_only=True):
    """The policy loss (loss/policy.py)."""

    kind: Literal["gspo", "ppo_clip", "reinforce_is", "grpo_token_mean", "grpo_seq_mean", "cispo"] = "gspo"
    clip_low: NonNegative = 3e-3
    clip_high: NonNegative = 4e-3
    length_weight: Literal["tokens", "uniform"] = "tokens"
    """gspo only: |y|/Bs or mean|y|/Bs per sequence."""
