"""Percentiles are within a hundredth of the exact ones, and memory does not grow."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from apriel_mcore.bench.histogram import Histogram

durations = st.lists(st.floats(1e-6, 999.0), min_size=1, max_size=200)


@given(durations, st.floats(0.0, 100.0))
def test_a_percentile_is_within_a_hundredth(seconds: list[float], q: float) -> None:
    histogram = Histogram()
    for one in seconds:
        histogram.add(one)
    exact = float(np.percentile(seconds, q, method="inverted_cdf"))
    assert exact <= histogram.percentile(q) * (1 + 1e-9)
    assert histogram.percentile(q) <= exact * 1.011
    assert len(histogram) == len(seconds)


def test_what_is_out_of_range_counts_at_the_ends() -> None:
    histogram = Histogram()
    before = histogram.num_bytes
    for one in (-1.0, 0.0, 1e9):
        histogram.add(one)
    assert len(histogram) == 3 and histogram.num_bytes == before
    assert histogram.percentile(50) < 2e-6 and histogram.percentile(100) > 999


def test_nothing_has_no_percentile() -> None:
    assert math.isnan(Histogram().percentile(99))
