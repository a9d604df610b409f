"""How long did many things take, in memory that does not grow with their number?"""

import math

import numpy as np

_SMALLEST_S = 1e-6
_BINS_PER_E = 100
"""Bins are one hundredth of their place wide: so exact is a percentile."""
_NUM_BINS = 2100
"""Up to 1e3 s."""


class Histogram:
    """Counts of durations, in bins of equal ratio; one thread writes."""

    def __init__(self) -> None:
        self._counts_B = np.zeros(_NUM_BINS, dtype=np.int64)

    def __len__(self) -> int:
        """Durations that were added."""
        return int(self._counts_B.sum())

    def add(self, seconds: float) -> None:
        """Count one duration; below a microsecond and above 1e3 s it counts as that."""
        place = int(math.log(max(seconds, _SMALLEST_S) / _SMALLEST_S) * _BINS_PER_E)
        self._counts_B[min(place, _NUM_BINS - 1)] += 1

    def percentile(self, q: float) -> float:
        """Seconds that `q` percent of the durations did not exceed, 1% too much at most; nan without any."""
        upto_B = np.cumsum(self._counts_B)
        if not upto_B[-1]:
            return math.nan
        place = int(np.searchsorted(upto_B, max(1.0, q / 100 * upto_B[-1])))
        return _SMALLEST_S * math.exp((place + 1) / _BINS_PER_E)

    @property
    def num_bytes(self) -> int:
        """What it occupies."""
        return self._counts_B.nbytes
