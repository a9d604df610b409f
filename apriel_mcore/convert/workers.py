"""How is a second core used without holding the model? A few threads, each with memory of its own, and no
more in work than there is room for.

    items, in order --room?--> idle worker --> results, in order
"""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from queue import SimpleQueue

MOST = 3
"""Threads, one more than cores if there are few: one waits for the disk while the others compute. Each holds
its own few tensors."""
ROOM = 2 << 30
"""Bytes that the items in work may hold together: an embedding of 1.3 GB leaves room for layers beside it,
but not for the head, which is as large."""


class Workers[Worker]:
    """Workers to whom items are dealt; reading, writing and digesting leave Python's lock alone."""

    def __init__(self, make: Callable[[], Worker]) -> None:
        self._count = min(MOST, 1 + len(os.sched_getaffinity(0)))
        self._idle: SimpleQueue[Worker] = SimpleQueue()
        for _ in range(self._count):
            self._idle.put(make())

    def map[Item, Result](
        self, work: Callable[[Worker, Item], Result], items: Iterable[Item], *, holds: Callable[[Item], int]
    ) -> list[Result]:
        """`work(worker, item)` for every item; results in the items' order.

        holds: bytes in memory while an item is in work; one that is larger than the room is in work alone.
        The first error is raised when no other item is in work any more; those not begun never begin.
        """

        def run(item: Item) -> Result:
            worker = self._idle.get()
            try:
                return work(worker, item)
            finally:
                self._idle.put(worker)

        with ThreadPoolExecutor(self._count) as pool:
            futures: list[Future[Result]] = []
            held: dict[Future[Result], int] = {}
            try:
                for item in items:
                    _make_room(held, holds(item))
                    futures.append(pool.submit(run, item))
                    held[futures[-1]] = holds(item)
                return [future.result() for future in futures]
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


def _make_room[Result](held: dict[Future[Result], int], size: int) -> None:
    """Wait until so many bytes fit beside those held, or nothing is held; raise the error of what ended."""
    while held and sum(held.values()) + size > ROOM:
        ended, _ = wait(held, return_when=FIRST_COMPLETED)
        for future in ended:
            future.result()
            del held[future]
