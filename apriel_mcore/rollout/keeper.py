"""One server through all of its lives: started, given the weights, watched, buried, started again.

    starting -> stale --(has the current weights)--> serving <-> suspect
        ^                                             |  |          |
        '-- restarting <---------------------------- dead <---------'
                 '--> given up, when patience ends    '--> draining -> retired, when asked to go

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

State = Literal[
    "starting", "stale", "serving", "suspect", "dead", "restarting", "given_up", "draining", "retired"
]


class Endpoint(Protocol):
    """A server's process, or the address of somebody else's."""

    @property
    def name(self) -> str: ...
    @property
    def url(self) -> str: ...
    @property
    def token(self) -> str: ...
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
    """And failed requests, in a row, after which a server is started again."""
    publish_s: float = 120.0
    """A server that takes longer over a new version leaves the pool until it has it."""


class Deeds(msgspec.Struct):
    """What one life of a server has done."""

    requests: int = 0
    tokens: int = 0
    failures: int = 0
    seconds: float = 0.0
    """Of all requests together."""


class ServerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One server of a pool, as `apriel pool list` and the step events show it."""

    name: str
    url: str
    state: State
    version: int
    """Of the weights that it has."""
    running: int
    requests: int
    """By its latest life, as all that follows but the restarts."""
    tokens: int
    failures: int
    restarts: int
    seconds_mean: float


class Life:
    """One life of a server, from its start to its end. Compared by identity."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.client = VllmClient(endpoint.url, token=endpoint.token)
        self.name = f"{endpoint.name}/{uuid4().hex}"
        self.version = -1
        """Of the weights it has; -1 for the checkpoint that it started from."""
        self.joined: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ended = asyncio.Event()
        self.since = time.monotonic()
        self.deeds = Deeds()
        self.failed_in_a_row = 0
        self._failed = 0.0

    def note_failure(self, asked: float) -> None:
        """Of a request asked at `asked` (monotonic); those that were under way together fail as one."""
        if asked >= self._failed:
            self.failed_in_a_row += 1
            self._failed = time.monotonic()


class Home(Protocol):
    """Where a server lives: the pool."""

    async def welcome(self, life: Life) -> None:
        """Let it serve once it has the current weights; ServerFailed if it cannot have them."""
        ...

    def retire(self, life: Life, reason: str) -> None:
        """Nothing is asked of it any more. Twice is harmless."""
        ...

    async def run_dry(self, life: Life) -> None:
        """Nothing new is asked of it; returns when all that it was asked is answered, or it has ended."""
        ...


class Keeper:
    """Keeps one server alive for as long as patience lasts."""

    def __init__(self, endpoint: Endpoint, home: Home, patience: Patience) -> None:
        self.endpoint = endpoint
        self.state: State = "starting"
        self.num_restarts = 0
        self.life: Life | None = None
        """The latest one, once it serves."""
        self._home = home
        self._patience = patience
        self._asked_to_go = asyncio.Event()

    async def raise_up(self) -> Life:
        """Start the server and see it serve.

        ServerFailed or PoolError when it does not come to that, OSError when there is no process for it.
        """
        self.endpoint.start()
        await self.endpoint.wait_ready(self._patience.start_timeout_s)
        life = Life(self.endpoint)
        self.state = "stale"
        async with AsyncExitStack() as undo:
            undo.push_async_callback(life.client.close)
            await self._home.welcome(life)
            undo.pop_all()
        self.state = "serving"
        self.life = life
        return life

    async def drain(self) -> None:
        """Have the server go once it has answered what it was asked; `keep` returns then."""
        life = self.life
        if self.state in ("serving", "suspect") and life:
            self.state = "draining"
            await self._home.run_dry(life)
        self._asked_to_go.set()
        if life:
            self._home.retire(life, "it was drained")

    def record(self, *, running: int) -> ServerRecord:
        """The server as it is now."""
        life = self.life
        deeds = life.deeds if life else Deeds()
        return ServerRecord(
            name=self.endpoint.name,
            url=self.endpoint.url,
            state=self.state,
            version=life.version if life else -1,
            running=running,
            requests=deeds.requests,
            tokens=deeds.tokens,
            failures=deeds.failures,
            restarts=self.num_restarts,
            seconds_mean=deeds.seconds / max(1, deeds.requests),
        )

    async def hang_up(self) -> None:
        """End what is still asked of the server."""
        if self.life:
            await self.life.client.close()

    async def keep(self, life: Life) -> None:
        """Watch the server to its end, and raise its successor; returns when it is given up or drained."""
        failures = 0
        while True:
            if self._asked_to_go.is_set():  # while it was coming back
                self._home.retire(life, "it was drained")
            await self._watch(life)
            self.state = "dead"
            await life.client.close()
            if time.monotonic() - life.since > self._patience.forgiven_after_s:
                failures = 0
            while True:
                await self.endpoint.stop()
                if self._asked_to_go.is_set():
                    self.state = "retired"
                    self.endpoint.forget()
                    return
                if failures == self._patience.restarts:
                    self.state = "given_up"
                    _log.error("%s is given up after %d restarts", self.endpoint.name, failures)
                    return
                self.state = "restarting"
                with suppress(TimeoutError):
                    delay_s = self._patience.backoff_s * 2**failures
                    await asyncio.wait_for(self._asked_to_go.wait(), delay_s)
                    continue
                failures += 1
                self.num_restarts += 1
                try:
                    life = await self.raise_up()
                    break
                except (ServerFailed, AprielError, OSError) as error:
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
            if self.state != "draining":
                self.state = "suspect" if misses else "serving"
            if misses == self._patience.missed_looks:
                self._home.retire(life, f"it did not answer {misses} times")
