"""Numbers over steps, small enough to draw: means of buckets with their extremes.

    step events --append--> columns --frame--> buckets of `width` steps, `width` a power of two

Bucket b holds the steps [b * width, (b + 1) * width), whatever else there is: a run that grows changes its
last buckets alone, so that a page asks for no more than those. Minimum and maximum of every bucket go with
its mean: down-sampling hides no spike. Shape suffixes: _S steps, _B buckets.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

type Floats = NDArray[np.float64]
type Ints = NDArray[np.int64]

_SIGNIFICANT = 5
_ROOM = 1024


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """Series of a run in buckets; a series is [mean_B], or [mean_B, low_B, high_B] where it varies."""

    width: int
    first_B: list[int]
    """First step of each bucket that is there."""
    last_B: list[int]
    series: dict[str, list[list[float]]]
    """NaN (null in JSON) where a bucket has no number."""


class Columns:
    """One row a step, one column a name, NaN where a step lacks it; steps ascend."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._steps_S: Ints = np.zeros(_ROOM, dtype=np.int64)
        self._columns: dict[str, Floats] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def last(self) -> int:
        """Step of the last row; 0 without one."""
        return int(self._steps_S[self._count - 1]) if self._count else 0

    def append(self, event: Mapping[str, Any]) -> None:
        """Take the numbers of an event; rows of its step and later ones, of an earlier attempt, go."""
        step = event[self._key]
        self.forget_after(step - 1)
        if self._count == len(self._steps_S):
            self._grow()
        row, self._count = self._count, self._count + 1
        self._steps_S[row] = step
        for name, value in event.items():
            if isinstance(value, int | float) and name != self._key:
                self._column(name)[row] = value

    def forget_after(self, step: int) -> None:
        """Drop the rows of later steps."""
        kept = int(np.searchsorted(self._steps_S[: self._count], step, side="right"))
        if kept < self._count:
            for column in self._columns.values():
                column[kept : self._count] = np.nan
            self._count = kept

    def values(self, name: str) -> Floats:
        """A column over all rows; NaN where it was not measured."""
        return self._columns[name][: self._count] if name in self._columns else np.full(self._count, np.nan)

    def latest(self) -> dict[str, float]:
        """The numbers of the last row."""
        if not self._count:
            return {}
        row = {name: float(column[self._count - 1]) for name, column in self._columns.items()}
        return {name: value for name, value in row.items() if value == value}

    def width_for(self, max_buckets: int, *, low: int = 0, high: int | None = None) -> int:
        """The smallest power of two with which the steps from `low` to `high` need few enough buckets."""
        span = (self.last if high is None else min(high, self.last)) - low + 1
        width = 1
        while span > width * max_buckets:
            width *= 2
        return width

    def frame(self, width: int, *, low: int = 0, high: int | None = None) -> Frame:
        """Buckets that hold steps of [low, high], whole ones at both ends."""
        steps_S = self._steps_S[: self._count]
        begin = int(np.searchsorted(steps_S, low // width * width))
        end = self._count if high is None else int(np.searchsorted(steps_S, (high // width + 1) * width))
        steps_S = steps_S[begin:end]
        if not len(steps_S):
            return Frame(width=width, first_B=[], last_B=[], series={})
        starts_B = np.flatnonzero(np.diff(steps_S // width, prepend=-1))
        ends_B = np.append(starts_B[1:], len(steps_S)) - 1
        return Frame(
            width=width,
            first_B=steps_S[starts_B].tolist(),
            last_B=steps_S[ends_B].tolist(),
            series={
                name: _buckets(column[begin:end], starts_B)
                for name, column in sorted(self._columns.items())
                if not np.isnan(column[begin:end]).all()
            },
        )

    def _column(self, name: str) -> Floats:
        if name not in self._columns:
            self._columns[name] = np.full(len(self._steps_S), np.nan)
        return self._columns[name]

    def _grow(self) -> None:
        self._steps_S = np.concatenate([self._steps_S, np.zeros_like(self._steps_S)])
        for name, column in self._columns.items():
            self._columns[name] = np.concatenate([column, np.full_like(column, np.nan)])


def _buckets(values_S: Floats, starts_B: NDArray[np.intp]) -> list[list[float]]:
    if len(starts_B) == len(values_S):
        return [_rounded(values_S)]
    there_S = ~np.isnan(values_S)
    counts_B = np.add.reduceat(there_S.astype(np.float64), starts_B)
    sums_B = np.add.reduceat(np.where(there_S, values_S, 0.0), starts_B)
    with np.errstate(invalid="ignore"):
        means_B = sums_B / counts_B
    lows_B, highs_B = np.fmin.reduceat(values_S, starts_B), np.fmax.reduceat(values_S, starts_B)
    if np.array_equal(lows_B, highs_B, equal_nan=True):
        return [_rounded(lows_B)]
    return [_rounded(means_B), _rounded(lows_B), _rounded(highs_B)]


def _rounded(values: Floats) -> list[float]:
    """To five significant digits: the eye sees no more, and the page stays small."""
    return [float(f"{value:.{_SIGNIFICANT}g}") for value in values.tolist()]
