"""Items are dealt to workers that nobody shares, and an error ends the dealing."""

import threading
import time

import pytest

from apriel_mcore.convert.workers import MOST, ROOM, Workers


class Busy:
    """Notices two threads in it at once."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def square(self, number: int) -> int:
        assert self.lock.acquire(blocking=False), "shared"
        time.sleep(0.001 * (number % 3))
        self.lock.release()
        return number * number


def light(number: int) -> int:
    return 1


def test_results_come_in_order_and_workers_are_not_shared() -> None:
    made: list[Busy] = []

    def make() -> Busy:
        made.append(Busy())
        return made[-1]

    workers = Workers(make)
    assert workers.map(Busy.square, range(40), holds=light) == [number * number for number in range(40)]
    assert 1 <= len(made) <= MOST


def test_an_error_stops_what_has_not_begun() -> None:
    begun: list[int] = []

    def work(worker: list[int], number: int) -> None:
        begun.append(number)
        time.sleep(0.01)
        if number == 3:
            raise ValueError("three")

    with pytest.raises(ValueError, match="three"):
        Workers(list).map(work, range(1000), holds=light)
    assert len(begun) < 100
    settled = len(begun)
    time.sleep(0.05)
    assert len(begun) == settled


def test_no_more_in_work_than_there_is_room_for() -> None:
    sizes = [ROOM // 2, ROOM // 2 - 1, 1, ROOM, ROOM + 1, 1, 2 * ROOM, *[ROOM // 4] * 20]
    changing = threading.Lock()
    held: list[int] = []
    most: list[list[int]] = []

    def work(_: list[int], size: int) -> None:
        with changing:
            held.append(size)
            most.append(list(held))
        time.sleep(0.002)
        with changing:
            held.remove(size)

    Workers(list).map(work, sizes, holds=lambda size: size)
    assert len(most) == len(sizes)
    assert all(sum(together) <= ROOM or len(together) == 1 for together in most), most
    assert max(map(len, most)) > 1


def test_an_error_reaches_who_waits_for_room() -> None:
    begun: list[int] = []

    def work(worker: list[int], number: int) -> None:
        begun.append(number)
        raise ValueError(str(number))

    with pytest.raises(ValueError, match="0"):
        Workers(list).map(work, range(3), holds=lambda _: ROOM)
    assert begun == [0]
