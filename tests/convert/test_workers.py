"""Items are dealt to workers that nobody shares, and an error ends the dealing."""

import threading
import time

import pytest

from apriel_mcore.convert.workers import MOST, Workers


class Busy:
    """Notices two threads in it at once."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def square(self, number: int) -> int:
        assert self.lock.acquire(blocking=False), "shared"
        time.sleep(0.001 * (number % 3))
        self.lock.release()
        return number * number


def test_results_come_in_order_and_workers_are_not_shared() -> None:
    made: list[Busy] = []

    def make() -> Busy:
        made.append(Busy())
        return made[-1]

    workers = Workers(make)
    assert workers.map(Busy.square, range(40)) == [number * number for number in range(40)]
    assert 1 <= len(made) <= MOST


def test_an_error_stops_what_has_not_begun() -> None:
    begun: list[int] = []

    def work(worker: list[int], number: int) -> None:
        begun.append(number)
        time.sleep(0.01)
        if number == 3:
            raise ValueError("three")

    with pytest.raises(ValueError, match="three"):
        Workers(list).map(work, range(1000))
    assert len(begun) < 100
    settled = len(begun)
    time.sleep(0.05)
    assert len(begun) == settled
