"""Which server answers next? The least loaded one with a free place, siblings of a prompt together.

    place(key): wait in line --> a server's place --> give it back

A server has a fixed number of places, so nothing waits inside it. Requests with one key (the siblings of
a prompt) go to one server while it has places, because there the prompt's KV is computed once; a key
is forgotten when its last request has left. The line is first come, first served.
"""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager


class Router[Server: Hashable]:
    """Places of the serving servers. Runs on one event loop; every method but `place` is instant."""

    def __init__(self, places_per_server: int) -> None:
        self._places = places_per_server
        self._taken: dict[Server, int] = {}
        self._leaving: set[Server] = set()
        self._given_back = asyncio.Event()
        self._home: dict[Hashable, Server] = {}
        self._askers: Counter[Hashable] = Counter()
        self._line: deque[tuple[Hashable, asyncio.Future[Server]]] = deque()
        self._failure: Exception | None = None
        self._occupied = asyncio.Event()

    @property
    def servers(self) -> list[Server]:
        """Those that serve now."""
        return list(self._taken)

    @property
    def num_running(self) -> int:
        """Places taken on serving servers."""
        return sum(self._taken.values())

    @property
    def num_waiting(self) -> int:
        """Requests in line."""
        return sum(not future.done() for _, future in self._line)

    def add(self, server: Server) -> None:
        """It serves from now on."""
        self._taken[server] = 0
        self._occupied.set()
        self._advance()

    def running_on(self, server: Server) -> int:
        """Places taken on it."""
        return self._taken.get(server, 0)

    async def run_dry(self, server: Server) -> None:
        """Give no more of its places; returns when all have come back, or it was removed."""
        if server not in self._taken:
            return
        self._leaving.add(server)
        self._home = {key: home for key, home in self._home.items() if home != server}
        while self._taken.get(server):
            self._given_back.clear()
            await self._given_back.wait()

    def remove(self, server: Server) -> None:
        """It serves no more; its places are gone, whoever holds them. Removing twice is harmless."""
        self._taken.pop(server, None)
        self._leaving.discard(server)
        self._given_back.set()
        self._home = {key: home for key, home in self._home.items() if home != server}
        if not self._taken and self._failure is None:
            self._occupied.clear()

    def fail(self, error: Exception) -> None:
        """No server will ever come: everyone waiting, now or later, gets `error`."""
        self._failure = error
        self._occupied.set()
        for _, future in self._line:
            if not future.done():
                future.set_exception(error)
        self._line.clear()

    async def until_serving(self) -> None:
        """Wait until there is a server; raises what `fail` was given."""
        await self._occupied.wait()
        if self._failure:
            raise self._failure

    @asynccontextmanager
    async def place(self, key: Hashable) -> AsyncIterator[Server]:
        """Hold a place; raises what `fail` was given."""
        self._askers[key] += 1
        try:
            server = await self._next(key)
            try:
                yield server
            finally:
                self._give_back(server)
        finally:
            self._askers[key] -= 1
            if not self._askers[key]:
                del self._askers[key]
                self._home.pop(key, None)

    async def _next(self, key: Hashable) -> Server:
        if self._failure:
            raise self._failure
        future: asyncio.Future[Server] = asyncio.get_running_loop().create_future()
        self._line.append((key, future))
        self._advance()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self._give_back(future.result())  # cancelled after the place was given, before we woke
            raise

    def _give_back(self, server: Server) -> None:
        if server in self._taken:
            self._taken[server] -= 1
            self._given_back.set()
            self._advance()

    def _advance(self) -> None:
        """Serve the line as far as there are places."""
        while self._line:
            key, future = self._line[0]
            if not future.done():
                free = [
                    server
                    for server, taken in self._taken.items()
                    if taken < self._places and server not in self._leaving
                ]
                if not free:
                    return
                server = self._choose(key, free)
                self._taken[server] += 1
                future.set_result(server)
            self._line.popleft()

    def _choose(self, key: Hashable, free: list[Server]) -> Server:
        home = self._home.get(key)
        if home in free:
            return home
        server = min(free, key=self._taken.__getitem__)
        self._home.setdefault(key, server)
        return server
