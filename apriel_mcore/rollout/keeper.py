"""One server through all of its lives: started, given the weights, watched, buried, started again.

    starting -> stale --(has the current weights)--> serving <-> suspect
        ^                                               |           |
        '-- restarting <------------------------------ dead <-------'
                 '--> given up, when patience ends

A keeper knows when a server lives; the pool that it keeps the server for knows what it must serve.
"""

import asyncio
import logging
import time
from contextlib import AsyncExitStack, suppress
from typing import Literal, Protocol
from uuid import uuid4

import msgspec

from apriel_mcore.errors import AprielError
from apriel_mcore.rollout.client import ServerFailed, VllmClient

_log = logging.getLogger(__name__)

State = Literal["starting", "stale", "serving", "suspect", "dead", "restarting", "given_up"]


class Endpoint(Protocol):
    """A server's process, or the address of somebody else's."""

    @property
    def name(self) -> str: ...
    @property
    def url(self) -> str: ...
    @property
    def alive(self) -> bool: ...
    def start(self) -> None: ...
    async def wait_ready(self, timeout_s: float) -> None: ...
    async def stop(self) -> None: ...
    def forget(self) -> None: ...


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How long the pool puts up with failing servers."""

    start_timeout_s: float
    request_attempts: int = 5
    restarts: int = 5
    """Of one server in a row; one that served for `forgiven_after_s` starts with a clean slate."""
    forgiven_after_s: float = 600.0
    backoff_s: float = 1.0
    """Before the first restart; doubles with each."""
    watch_s: float = 2.0
    """Between two looks at a server."""
    missed_looks: int = 3


class Life:
    """One life of a server, from its start to its end. Compared by identity."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.client = VllmClient(endpoint.url)
        self.name = f"{endpoint.name}/{uuid4().hex}"
        self.version = -1
        """Of the weights it has; -1 for the checkpoint that it started from."""
        self.joined: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ended = asyncio.Event()
        self.since = time.monotonic()


class Home(Protocol):
    """Where a server lives: the pool."""

    async def welcome(self, life: Life) -> None:
        """Let it serve once it has the current weights; ServerFailed if it cannot have them."""
        ...

    def retire(self, life: Life, reason: str) -> None:
        """Nothing is asked of it any more. Twice is harmless."""
        ...


class Keeper:
    """Keeps one server alive for as long as patience lasts."""

    def __init__(self, endpoint: Endpoint, home: Home, patience: Patience) -> None:
        self.endpoint = endpoint
        self.state: State = "starting"
        self.num_restarts = 0
        self._home = home
        self._patience = patience

    async def raise_up(self) -> Life:
        """Start the server and see it serve. ServerFailed or PoolError when it does not come to that."""
        self.endpoint.start()
        await self.endpoint.wait_ready(self._patience.start_timeout_s)
        life = Life(self.endpoint)
        self.state = "stale"
        async with AsyncExitStack() as undo:
            undo.push_async_callback(life.client.close)
            await self._home.welcome(life)
            undo.pop_all()
        self.state = "serving"
        return life

    async def keep(self, life: Life) -> None:
        """Watch the server to its end, and raise its successor; returns when it is given up."""
        failures = 0
        while True:
            await self._watch(life)
            self.state = "dead"
            await life.client.close()
            if time.monotonic() - life.since > self._patience.forgiven_after_s:
                failures = 0
            while True:
                await self.endpoint.stop()
                if failures == self._patience.restarts:
                    self.state = "given_up"
                    _log.error("%s is given up after %d restarts", self.endpoint.name, failures)
                    return
                self.state = "restarting"
                await asyncio.sleep(self._patience.backoff_s * 2**failures)
                failures += 1
                self.num_restarts += 1
                try:
                    life = await self.raise_up()
                    break
                except (ServerFailed, AprielError) as error:
                    _log.warning("%s could not be restarted: %s", self.endpoint.name, error)

    async def _watch(self, life: Life) -> None:
        """Returns when the server has ended; retires it first if nobody else did."""
        misses = 0
        while not life.ended.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(life.ended.wait(), self._patience.watch_s)
            if not self.endpoint.alive:
                self._home.retire(life, "its process ended")
                return
            misses = 0 if await life.client.is_healthy() else misses + 1
            self.state = "suspect" if misses else "serving"
            if misses == self._patience.missed_looks:
                self._home.retire(life, f"it did not answer {misses} times")
