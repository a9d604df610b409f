"""Down-sampling keeps every extreme, and the last buckets alone bring a page up to date."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from apriel_mcore.views.columns import Columns

NUMBERS = st.floats(-1e6, 1e6) | st.just(math.nan)


def columns_of(values: list[float]) -> Columns:
    columns = Columns("step")
    for step, value in enumerate(values, start=1):
        columns.append({"step": step, "loss": value, "event": "step"})
    return columns


@given(st.lists(NUMBERS, min_size=1, max_size=300), st.integers(1, 40))
def test_no_bucket_hides_an_extreme(values: list[float], max_buckets: int) -> None:
    columns = columns_of(values)
    width = columns.width_for(max_buckets)
    frame = columns.frame(width)
    assert len(frame.first_B) <= max_buckets + 1
    parts = frame.series.get("loss", [[math.nan] * len(frame.first_B)])
    means_B, lows_B, highs_B = parts if len(parts) == 3 else parts * 3
    for first, last, mean, low, high in zip(
        frame.first_B, frame.last_B, means_B, lows_B, highs_B, strict=True
    ):
        there = [value for value in values[first - 1 : last] if not math.isnan(value)]
        if not there:
            assert math.isnan(mean)
            continue
        assert low == float(f"{min(there):.5g}")
        assert high == float(f"{max(there):.5g}")
        assert math.isclose(mean, np.mean(there), rel_tol=1e-4, abs_tol=1e-5 * max(map(abs, there)))


@given(st.lists(NUMBERS, min_size=2, max_size=200), st.data())
def test_the_last_buckets_complete_an_older_frame(values: list[float], data: st.DataObject) -> None:
    seen = data.draw(st.integers(1, len(values) - 1))
    columns = columns_of(values[:seen])
    width = 8
    old = columns.frame(width)
    for step, value in enumerate(values[seen:], start=seen + 1):
        columns.append({"step": step, "loss": value})
    tail = columns.frame(width, low=old.first_B[-1])
    whole = columns.frame(width)
    assert old.first_B[:-1] + tail.first_B == whole.first_B
    assert old.last_B[:-1] + tail.last_B == whole.last_B


def test_steps_of_an_earlier_attempt_go_when_they_are_written_again() -> None:
    columns = columns_of([1.0, 2.0, 3.0, 4.0])
    columns.append({"step": 3, "reward": 9.0})
    assert (len(columns), columns.last) == (3, 3)
    assert columns.frame(1).series["reward"][0][2] == 9.0
    assert math.isnan(columns.frame(1).series["loss"][0][2])
    columns.forget_after(1)
    assert columns.latest() == {"loss": 1.0}


def test_a_range_holds_whole_buckets() -> None:
    frame = columns_of([float(i) for i in range(1, 101)]).frame(4, low=10, high=21)
    assert (frame.first_B[0], frame.last_B[-1]) == (8, 23)
