"""The overlong penalty and its difficulty factor: every edge case of the recipe, then properties."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apriel_mcore.config.schema import (
    DifficultyAwareLengthPenalty,
    LengthPenalty,
    NoLengthPenalty,
    StandardLengthPenalty,
)
from apriel_mcore.loss.length import difficulty_factors, group_penalty, overlong_penalty

BUDGET = 16000
BUFFER = 2000
STANDARD = StandardLengthPenalty(buffer=BUFFER)
DIFFICULTY_AWARE = DifficultyAwareLengthPenalty(buffer=BUFFER)


def charges(settings: LengthPenalty, rollouts_G: list[tuple[int, bool, bool]]) -> list[float]:
    """lambda * LP of each (length, success, truncated)."""
    lengths_G, success_G, truncated_G = zip(*rollouts_G, strict=True)
    penalty_G, factor_G = group_penalty(
        settings,
        lengths_G=lengths_G,
        success_G=success_G,
        truncated_G=truncated_G,
        budget=BUDGET,
    )
    return [penalty * factor for penalty, factor in zip(penalty_G, factor_G, strict=True)]


@pytest.mark.parametrize(
    ("length", "expected"),
    [(1, 0.0), (13999, 0.0), (14000, 0.0), (14001, -1 / 2000), (15000, -0.5), (16000, -1.0), (16001, -1.0)],
)
def test_the_penalty_is_a_ramp_over_the_buffer(length: int, expected: float) -> None:
    assert overlong_penalty(length, budget=BUDGET, buffer=BUFFER) == expected


def test_several_turns_do_not_escape_past_the_budget() -> None:
    assert overlong_penalty(10 * BUDGET, budget=BUDGET, buffer=BUFFER) == -1.0


@pytest.mark.parametrize("buffer", [0, BUDGET, BUDGET + 1])
def test_a_buffer_outside_the_budget_is_our_own_mistake(buffer: int) -> None:
    with pytest.raises(AssertionError, match="buffer"):
        overlong_penalty(1, budget=BUDGET, buffer=buffer)


def test_hard_problem_charges_successes_little_failures_in_full_and_the_cap_whatever_the_rate() -> None:
    group_G = [(15000, True, False), (15000, False, False), (16000, False, True), (100, False, False)]
    assert charges(DIFFICULTY_AWARE, group_G) == [-0.125, -0.5, -1.0, 0.0]


def test_standard_penalty_ignores_difficulty() -> None:
    group_G = [(15000, True, False), (15000, False, False), (16000, False, True), (100, False, False)]
    assert charges(STANDARD, group_G) == [-0.5, -0.5, -1.0, 0.0]


def test_no_penalty_has_zero_penalty_and_unit_factor() -> None:
    parts = group_penalty(
        NoLengthPenalty(),
        lengths_G=(99999, 1),
        success_G=(True, False),
        truncated_G=(True, False),
        budget=1,
    )
    assert parts == ((0.0, 0.0), (1.0, 1.0))


def test_all_correct_group_is_charged_in_full() -> None:
    assert charges(DIFFICULTY_AWARE, [(15000, True, False), (14500, True, False)]) == [-0.5, -0.25]


def test_all_wrong_group_is_charged_in_full_and_differs_by_length_alone() -> None:
    assert charges(DIFFICULTY_AWARE, [(15000, False, False), (14000, False, False)]) == [-0.5, 0.0]


def test_all_truncated_group_is_charged_alike() -> None:
    assert charges(DIFFICULTY_AWARE, [(BUDGET, False, True)] * 4) == [-1.0] * 4


def test_a_truncated_success_raises_the_solve_rate_and_is_charged_in_full_itself() -> None:
    factor_G = difficulty_factors(
        (True, True, False, False), (True, False, False, False), gamma=1.0, failure_scale=1.0
    )
    assert factor_G == (1.0, 0.5, 1.0, 1.0)


def test_truncation_is_the_finish_reason_not_the_length() -> None:
    stopped_early_G = [(15000, True, True), (15000, True, False), (15000, False, False), (1, False, False)]
    assert charges(DIFFICULTY_AWARE, stopped_early_G)[:2] == [-0.5, -0.25]


def test_a_short_group_counts_only_its_own_rollouts() -> None:
    assert difficulty_factors((True, False, False), (False,) * 3, gamma=1.0, failure_scale=1.0)[0] == 1 / 3


groups_G = st.lists(
    st.tuples(st.integers(1, 2 * BUDGET), st.booleans(), st.booleans()), min_size=1, max_size=16
)
gammas = st.floats(0, 8)
scales = st.floats(0, 1)


@given(st.integers(2, 50000), st.data())
def test_the_penalty_is_monotone_bounded_and_exact_at_both_ends(budget: int, data: st.DataObject) -> None:
    buffer = data.draw(st.integers(1, budget - 1))
    shorter, longer = sorted(data.draw(st.tuples(st.integers(0, 3 * budget), st.integers(0, 3 * budget))))
    at = {
        length: overlong_penalty(length, budget=budget, buffer=buffer)
        for length in (shorter, longer, budget - buffer, budget)
    }
    assert -1.0 <= at[longer] <= at[shorter] <= 0.0
    assert (at[budget - buffer], at[budget]) == (0.0, -1.0)


@given(groups_G, gammas, scales)
def test_charges_lie_between_minus_one_and_zero(
    group_G: list[tuple[int, bool, bool]], gamma: float, scale: float
) -> None:
    settings = DifficultyAwareLengthPenalty(buffer=BUFFER, gamma=gamma, failure_scale=scale)
    assert all(-1.0 <= charge <= 0.0 for charge in charges(settings, group_G))


@given(groups_G, gammas, scales)
def test_equal_outcomes_are_charged_more_when_longer(
    group_G: list[tuple[int, bool, bool]], gamma: float, scale: float
) -> None:
    settings = DifficultyAwareLengthPenalty(buffer=BUFFER, gamma=gamma, failure_scale=scale)
    charged_G = zip(group_G, charges(settings, group_G), strict=True)
    for (one, charge_one), (other, charge_other) in itertools.permutations(charged_G, 2):
        if one[1:] == other[1:] and one[0] <= other[0]:
            assert charge_one >= charge_other


@given(groups_G)
def test_gamma_zero_and_full_failure_scale_are_the_standard_penalty(
    group_G: list[tuple[int, bool, bool]],
) -> None:
    settings = DifficultyAwareLengthPenalty(buffer=BUFFER, gamma=0.0, failure_scale=1.0)
    assert charges(settings, group_G) == charges(STANDARD, group_G)


@given(groups_G)
def test_large_gamma_and_no_failure_scale_leave_only_the_hard_cap(
    group_G: list[tuple[int, bool, bool]],
) -> None:
    settings = DifficultyAwareLengthPenalty(buffer=BUFFER, gamma=1000.0, failure_scale=0.0)
    all_correct = all(success for _, success, _ in group_G)
    for (_, _, truncated), charge in zip(group_G, charges(settings, group_G), strict=True):
        assert truncated or all_correct or abs(charge) < 1e-12


@given(groups_G, st.floats(0.01, 8))
def test_the_success_factor_never_falls_below_one_lone_success(
    group_G: list[tuple[int, bool, bool]], gamma: float
) -> None:
    _, success_G, truncated_G = zip(*group_G, strict=True)
    factor_G = difficulty_factors(success_G, truncated_G, gamma=gamma, failure_scale=0.0)
    for success, factor in zip(success_G, factor_G, strict=True):
        assert not success or len(group_G) ** -gamma - 1e-12 <= factor <= 1.0


@given(st.integers(2, 16), st.floats(0.01, 4), st.data())
def test_successes_are_charged_less_the_harder_the_problem(n: int, gamma: float, data: st.DataObject) -> None:
    fewer, more = sorted(data.draw(st.tuples(st.integers(1, n), st.integers(1, n))))
    hard, easy = (
        difficulty_factors([j < successes for j in range(n)], [False] * n, gamma=gamma, failure_scale=1.0)[0]
        for successes in (fewer, more)
    )
    assert hard <= easy
