"""What is an answer worth? From a verdict to the task reward, and from a group to shaped rewards.

    verdict, finished? --table------> task reward R --.
    reference log-probs --reference.py--'             |--> ShapedReward, total r = R + lambda * LP
    lengths, successes --length.py----> LP, lambda ---'

Shape suffix: _G the rollouts of one group. Nothing here is used in evaluation, which counts successes.
"""

from typing import NamedTuple

from apriel_mcore.config.schema import LengthPenalty, ReferenceReward, RunConfig
from apriel_mcore.loss.length import group_penalty
from apriel_mcore.loss.reference import with_reference
from apriel_mcore.types import Group, ShapedReward, Verdict


class Scale(NamedTuple):
    """Rewards of one table for answers that ended in one way."""

    correct: float
    wrong: float
    unusable: float
    """No answer, one that cannot be parsed, or one that ran out of time."""


class Table(NamedTuple):
    """A reward table: what finished answers earn, and what truncated ones do."""

    finished: Scale
    truncated: Scale


TABLES: dict[str, Table] = {
    "success_and_format": Table(Scale(1.0, 0.0, 0.0), Scale(0.0, 0.0, 0.0)),
    "pure_success": Table(Scale(1.0, 0.0, 0.0), Scale(1.0, 0.0, 0.0)),
    "success": Table(Scale(1.0, 0.0, 0.0), Scale(0.5, 0.0, 0.0)),
    "base": Table(Scale(1.0, -0.5, -1.0), Scale(-1.0, -1.0, -1.0)),
}


def task_reward(verdict: Verdict, *, truncated: bool, table: str) -> float:
    """R of one rollout under the named table; `truncated` means stopped at the output budget.

    Partial credit lies between the wrong and the correct entry of the same column, at `verdict.score`.
    """
    assert 0.0 <= verdict.score <= 1.0, f"a judge gave a score outside [0, 1]: {verdict}"
    assert verdict.success == (verdict.status == "correct"), f"a judge contradicts itself: {verdict}"
    scale = TABLES[table].truncated if truncated else TABLES[table].finished
    match verdict.status:
        case "correct":
            return scale.correct
        case "partial":
            return scale.wrong + (scale.correct - scale.wrong) * verdict.score
        case "wrong":
            return scale.wrong
        case "no_answer" | "unparsable" | "timeout":
            return scale.unusable


def shape(
    group: Group, *, table: str, reference: ReferenceReward, length: LengthPenalty, budget: int
) -> tuple[ShapedReward, ...]:
    """The shaped reward of each rollout of the group, in its order.

    Args:
        table: key of TABLES.
        reference: the reference reward of the group's domain.
        length: its length penalty.
        budget: its output tokens L.
    """
    truncated_G = [rollout.truncated for rollout in group.rollouts_G]
    penalty_G, factor_G = group_penalty(
        length,
        lengths_G=[len(rollout.tokens_T) for rollout in group.rollouts_G],
        success_G=[rollout.verdict.success for rollout in group.rollouts_G],
        truncated_G=truncated_G,
        budget=budget,
    )
    task_G = [
        task_reward(rollout.verdict, truncated=truncated, table=table)
        for rollout, truncated in zip(group.rollouts_G, truncated_G, strict=True)
    ]
    task_G = with_reference(task_G, group, reference)
    return tuple(
        ShapedReward(task=task, length=penalty, factor=factor)
        for task, penalty, factor in zip(task_G, penalty_G, factor_G, strict=True)
    )


def shape_group(group: Group, config: RunConfig) -> tuple[ShapedReward, ...]:
    """`shape` with the recipe's table, and the penalty and budget of the group's domain."""
    domain = group.problem.domain
    return shape(
        group,
        table=config.reward.table,
        reference=config.domains[domain].reference_reward,
        length=config.length_of(domain),
        budget=config.budget_of(domain),
    )
