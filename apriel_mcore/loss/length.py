"""What does a long answer cost? The soft overlong penalty and its difficulty-aware factor.

    lengths_G --------> penalty_G --.
                                    |--> charged: penalty * factor, added to the task reward
    success_G, --> solve rate s --> factor_G
    truncated_G

Shape suffix: _G the rollouts of one group. Lengths count the policy's own output tokens, the end
token included, over all its turns. Sources: DAPO (arXiv 2503.14476, section 3.4) for the penalty,
Apriel-Reasoner (arXiv 2604.02007) for the factor.
"""

from collections.abc import Sequence

from apriel_mcore.config.schema import (
    DifficultyAwareLengthPenalty,
    LengthPenalty,
    NoLengthPenalty,
    StandardLengthPenalty,
)


def overlong_penalty(length: int, *, budget: int, buffer: int) -> float:
    """LP(l) in [-1, 0]: 0 up to `budget - buffer` tokens, then linear to -1 at `budget`, and -1 beyond.

    The value stays at -1 past the budget, so no total of several turns escapes the penalty.
    """
    assert 0 < buffer < budget, f"the recipe must give 0 < buffer < budget, found {buffer} and {budget}"
    return max(-1.0, min(0.0, (budget - buffer - length) / buffer))


def difficulty_factors(
    success_G: Sequence[bool], truncated_G: Sequence[bool], *, gamma: float, failure_scale: float
) -> tuple[float, ...]:
    """lambda in [0, 1] of each rollout: how much of its penalty is charged, given the group's solve rate.

    Finished successes are charged `s ** gamma`: a problem that the group finds hard may take tokens.
    Finished failures are charged `failure_scale`. Truncated rollouts are charged in full, whatever s
    is: the budget is a hard cap. s counts every success of the group, truncated ones included.
    """
    success_factor = (sum(success_G) / len(success_G)) ** gamma
    return tuple(
        1.0 if truncated else success_factor if success else failure_scale
        for success, truncated in zip(success_G, truncated_G, strict=True)
    )


def group_penalty(
    settings: LengthPenalty,
    *,
    lengths_G: Sequence[int],
    success_G: Sequence[bool],
    truncated_G: Sequence[bool],
    budget: int,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(penalty_G, factor_G) of one group; what is charged is their product.

    Without a length penalty, the penalty is 0 with factor 1.
    """
    full_G = (1.0,) * len(lengths_G)
    match settings:
        case NoLengthPenalty():
            return (0.0,) * len(lengths_G), full_G
        case StandardLengthPenalty():
            factor_G = full_G
        case DifficultyAwareLengthPenalty():
            factor_G = difficulty_factors(
                success_G, truncated_G, gamma=settings.gamma, failure_scale=settings.failure_scale
            )
    penalty_G = tuple(overlong_penalty(length, budget=budget, buffer=settings.buffer) for length in lengths_G)
    return penalty_G, factor_G
