"""Quotas sum to the batch, stay within one of what is owed, and follow token means."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apriel_mcore.data.targets import quotas, recentred, token_debt, token_shares

WEIGHTS = st.lists(st.floats(0.001, 1.0), min_size=1, max_size=6)


@given(weights=WEIGHTS, size=st.integers(1, 200))
def test_quotas_are_the_largest_remainder_rounding(weights, size):
    raw_D = [weight / sum(weights) * size for weight in weights]
    quotas_D = quotas(raw_D, range(len(weights)), size)
    assert sum(quotas_D) == size
    assert all(abs(raw - quota) < 1 + 1e-9 for raw, quota in zip(raw_D, quotas_D, strict=True))
    remainders = [raw - int(raw) for raw in raw_D]
    rounded_up = [r for r, raw, q in zip(remainders, raw_D, quotas_D, strict=True) if q > int(raw)]
    rounded_down = [r for r, raw, q in zip(remainders, raw_D, quotas_D, strict=True) if q == int(raw)]
    if rounded_up and rounded_down:
        assert min(rounded_up) >= max(rounded_down) - 1e-6


def test_quotas_are_never_negative_and_ties_go_to_the_first():
    assert quotas([-0.9, 2.0, 0.9], [0, 1, 2], 2) == [0, 2, 0]
    assert quotas([0.5, 0.5], [0, 1], 1) == [1, 0]
    assert quotas([5.0, 1.0], [1], 3) == [0, 3]


def test_token_shares_undo_the_lengths():
    assert token_shares([0.5, 0.5], [300.0, 100.0]) == pytest.approx([0.25, 0.75])
    assert token_shares([0.4, 0.4, 0.2], [100.0, 100.0, 0.0]) == pytest.approx([0.4, 0.4, 0.2])
    assert token_shares([0.4, 0.6], [0.0, 0.0]) == pytest.approx([0.4, 0.6])


@given(carry=st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3))
def test_token_debt_is_bounded_and_sums_to_zero(carry):
    debt_D = token_debt(carry, [100.0, 10.0, 0.0], [0.5, 0.3, 0.2], [16.0, 10.0, 6.0])
    assert sum(debt_D) == pytest.approx(0.0, abs=1e-9)
    assert all(abs(debt) <= 32.0 for debt in debt_D)


def test_recentred_takes_the_excess_in_proportion():
    assert recentred([1.0, 1.0, 5.0], [0.25, 0.75, 0.0]) == pytest.approx([0.5, -0.5, 0.0])
