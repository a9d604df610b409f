"""Where do the pool, the judges and the feed run? On one event loop, beside the trainer's thread."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

import uvloop


class EventLoopThread:
    """An event loop on a thread of its own, for the pool, the judges and the feed.

    uvloop takes a sixth off what a rollout costs this thread (`apriel bench load`).
    """

    def __init__(self) -> None:
        self.loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="feed", daemon=True)
        self._thread.start()

    def run[T](self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine there and wait for its result."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def close(self) -> None:
        """Stop the loop and join its thread."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(timeout=10)
