"""Which servers has a pool, and how do they come and go while it serves?

start --> keepers --keep--> ... --> given up (patience ended) | retired (drained)
           ^    '-- drain: nothing new is asked, what runs is answered, then it stops
           '-- add
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

from apriel_mcore.errors import AprielError, InputError, PoolError
from apriel_mcore.rollout.client import ServerFailed
from apriel_mcore.rollout.keeper import Endpoint, Home, Keeper, Life, Patience

_log = logging.getLogger(__name__)
_LEFT = ("given_up", "retired")


class Fleet:
    """The keepers of a pool's servers. `on_end` is given what ends the pool: its last server, or a bug."""

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        home: Home,
        patience: Patience,
        *,
        on_end: Callable[[PoolError], None],
    ) -> None:
        self.keepers = [Keeper(endpoint, home, patience) for endpoint in endpoints]
        self._home = home
        self._patience = patience
        self._on_end = on_end
        self._keeping: dict[str, asyncio.Task[None]] = {}

    async def start(self) -> None:
        """Start every server and wait for all; the first failure ends the others and is raised."""
        async with AsyncExitStack() as undo:
            undo.push_async_callback(self._stop_all)
            lives = [asyncio.create_task(keeper.raise_up()) for keeper in self.keepers]
            undo.push_async_callback(_cancel, lives)
            servers = await asyncio.gather(*lives)
            undo.pop_all()
        for keeper, server in zip(self.keepers, servers, strict=True):
            self._keep(keeper, server)

    async def stop(self) -> None:
        """End every server."""
        await _cancel([*self._keeping.values()])
        await self._stop_all()

    async def add(self, endpoint: Endpoint) -> None:
        """Start one more server; returns when it serves the current weights.

        InputError when there is one of that name, PoolError when it does not come to serve.
        """
        old = [keeper for keeper in self.keepers if keeper.endpoint.name == endpoint.name]
        if any(keeper.state not in _LEFT for keeper in old):
            raise InputError(f"{endpoint.name} is in the pool: it is {old[0].state}")
        keeper = Keeper(endpoint, self._home, self._patience)
        self.keepers = [other for other in self.keepers if other not in old] + [keeper]
        try:
            server = await keeper.raise_up()
        except (ServerFailed, AprielError, OSError) as error:
            self.keepers.remove(keeper)
            await endpoint.stop()
            endpoint.forget()
            raise PoolError(f"{endpoint.name} does not serve: {error}") from error
        self._keep(keeper, server)

    async def drain(self, name: str) -> None:
        """Ask nothing more of a server, let it answer what it was asked, and stop it.

        InputError when it is not there, or when nobody else would be left.
        """
        keepers = {keeper.endpoint.name: keeper for keeper in self.keepers if keeper.state not in _LEFT}
        if name not in keepers or keepers[name].state == "draining":
            raise InputError(f"{name}: no server of that name to drain; there are {', '.join(keepers)}")
        if name not in self._keeping:
            raise InputError(f"{name} is being added; wait until it serves")
        others = [keeper for keeper in keepers.values() if keeper.endpoint.name != name]
        if not any(keeper.state in ("serving", "suspect") for keeper in others):
            raise InputError(f"{name} is the last server that serves; add another one first")
        await keepers[name].drain()
        await asyncio.wait([self._keeping[name]])

    def _keep(self, keeper: Keeper, server: Life) -> None:
        task = asyncio.create_task(keeper.keep(server))
        self._keeping[keeper.endpoint.name] = task
        task.add_done_callback(self._note_end)

    def _note_end(self, task: asyncio.Task[None]) -> None:
        """The last keeper to end, or a broken one, ends the pool."""
        if task.cancelled():
            return
        if error := task.exception():
            self._on_end(PoolError(f"the pool broke: {error!r}"))
        elif all(other.done() for other in self._keeping.values()):
            self._on_end(PoolError("no rollout server is left; see the servers' logs"))

    async def _stop_all(self) -> None:
        keepers = [keeper for keeper in self.keepers if keeper.state != "retired"]
        for keeper in keepers:
            await keeper.hang_up()
        await asyncio.gather(*(keeper.endpoint.stop() for keeper in keepers))
        for keeper in keepers:
            keeper.endpoint.forget()


async def _cancel(tasks: "Sequence[asyncio.Task[Any]]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
