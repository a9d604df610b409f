"""An array that is appended to, amortised: numpy's speed to read, a list's to grow."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

_ROOM = 1024
_BATCH = 8192


class Growing:
    """Values of one type; those appended last wait in a list until someone reads."""

    def __init__(self, dtype: DTypeLike) -> None:
        self._room: NDArray[Any] = np.zeros(_ROOM, dtype=dtype)
        self._count = 0
        self._late: list[Any] = []

    def __len__(self) -> int:
        return self._count + len(self._late)

    def extend(self, values: Iterable[Any]) -> None:
        """Append values."""
        self._late.extend(values)
        if len(self._late) >= _BATCH:
            self._settle()

    @property
    def values(self) -> NDArray[Any]:
        """All of them; a view until the next change."""
        if self._late:
            self._settle()
        return self._room[: self._count]

    def cut(self, count: int) -> None:
        """Keep the first `count`."""
        self._settle()
        self._count = min(self._count, count)

    def _settle(self) -> None:
        while self._count + len(self._late) > len(self._room):
            self._room = np.concatenate([self._room, np.zeros_like(self._room)])
        self._room[self._count : self._count + len(self._late)] = self._late
        self._count += len(self._late)
        self._late = []
