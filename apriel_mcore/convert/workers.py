"""How is a second core used without holding the model? A few threads, each with memory of its own."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

MOST = 3
"""Threads, one more than cores if there are few: one waits for the disk while the others compute. Each holds
its own few tensors."""


class Workers[Worker]:
    """Workers to whom items are dealt; reading, writing and digesting leave Python's lock alone."""

    def __init__(self, make: Callable[[], Worker]) -> None:
        self._count = min(MOST, 1 + len(os.sched_getaffinity(0)))
        self._idle: SimpleQueue[Worker] = SimpleQueue()
        for _ in range(self._count):
            self._idle.put(make())

    def map[Item, Result](
        self, work: Callable[[Worker, Item], Result], items: Iterable[Item]
    ) -> list[Result]:
        """`work(worker, item)` for every item; results in the items' order.

        The first error is raised when no other item is in work any more; those not begun never begin.
        """

        def run(item: Item) -> Result:
            worker = self._idle.get()
            try:
                return work(worker, item)
            finally:
                self._idle.put(worker)

        with ThreadPoolExecutor(self._count) as pool:
            futures = [pool.submit(run, item) for item in items]
            try:
                return [future.result() for future in futures]
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
