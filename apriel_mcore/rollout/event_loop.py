"""Where do the pool, the judges and the feed run? On one event loop, beside the trainer's thread."""

import asyncio
import gc
import sys
import threading
from collections.abc import Coroutine
from typing import Any

import uvloop

_SWITCH_S = 5e-4
"""The interpreter's own 5 ms are what each callback of the loop waits while the trainer's thread computes."""
_YOUNG = 100_000
"""Objects before a collection; thousands of requests in flight are some tens of thousands."""


def make_way() -> None:
    """Have the rest of this process stop the loop as little as it can; once all that stays has been made.

    A full collection stops every thread for a tenth of a second, and the interpreter's usual thresholds begin
    one every second, for requests that merely wait. What was made until now is never visited again, and the
    young are looked at when there are many: tensors in cycles are still found.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, 10, 10)
    sys.setswitchinterval(_SWITCH_S)


class EventLoopThread:
    """An event loop on a thread of its own, for the pool, the judges and the feed.

    uvloop takes a sixth off what a rollout costs this thread (`apriel bench load`).
    """

    def __init__(self) -> None:
        self.loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="feed", daemon=True)
        self._thread.start()

    @property
    def native_id(self) -> int:
        """The thread, as the system knows it."""
        assert self._thread.native_id is not None, "it was started"
        return self._thread.native_id

    def run[T](self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine there and wait for its result."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def close(self) -> None:
        """Stop the loop and join its thread."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(timeout=10)
