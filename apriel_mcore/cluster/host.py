"""A rollout node: its servers, each watched by a keeper of its own and started again when it ends.

    keeper --start--> server <--requests, weights-- the pool on the leading node

The pool decides what may be asked of a server; here it is only kept alive. A server that was started again
answers nobody until the pool has given it the current weights.
"""

import asyncio
import logging

from apriel_mcore import secret
from apriel_mcore.cluster.place import POLL_S, Place
from apriel_mcore.data import model_files
from apriel_mcore.errors import AprielError
from apriel_mcore.rollout.configured import Share, server_spec
from apriel_mcore.rollout.keeper import Keeper, Life, Patience
from apriel_mcore.rollout.server import ServerProcess

_log = logging.getLogger(__name__)


class _Doorstep:
    """keeper.Home of servers that serve somebody else's pool."""

    def __init__(self) -> None:
        self._latest: dict[str, Life] = {}

    async def welcome(self, life: Life) -> None:
        """The pool on the leading node finds it by its address."""
        self._latest[life.endpoint.name] = life

    async def close(self) -> None:
        """No server is looked at any more."""
        for life in self._latest.values():
            await life.client.close()

    def retire(self, life: Life, reason: str) -> None:
        """Its keeper starts it again."""
        life.ended.set()
        _log.warning("%s: %s", life.endpoint.name, reason)

    async def run_dry(self, life: Life) -> None:
        """What it was asked, the pool on the leading node knows: there it is drained."""


def host(place: Place) -> None:
    """Servers until the run ends, which raises Ended; PoolError when one does not start."""
    place.wait_until(place.attempt.orders)
    asyncio.run(_host(place))


async def _host(place: Place) -> None:
    nodes, config = place.nodes, place.config
    share = Share(
        numbers=nodes.servers_on(place.node),
        host=place.attempt.address(place.node).read_text(encoding="utf-8"),
        first_port=nodes.server_port(0),
        first_device=0,
    )
    model = model_files.model_folder(config.model)
    token = secret.read(place.attempt.token, secret.SERVER_VARIABLE)
    specs = [
        server_spec(config, share, number, model=model, run=place.run_dir.digest) for number in share.numbers
    ]
    servers = [ServerProcess(spec, place.run_dir.logs, token=token) for spec in specs]
    home = _Doorstep()
    patience = Patience(start_timeout_s=specs[0].settings.start_timeout_s)
    keeping = [asyncio.create_task(_keep(Keeper(server, home, patience))) for server in servers]
    try:
        while True:
            place.require_going_on()
            done, _ = await asyncio.wait(keeping, timeout=POLL_S, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()  # raises what a server that never started says
            if len(done) == len(keeping):
                raise AprielError(f"every server here was given up; see {place.run_dir.logs}")
    finally:
        for task in keeping:
            task.cancel()
        await asyncio.gather(*keeping, return_exceptions=True)
        await home.close()
        await asyncio.gather(*(server.stop() for server in servers))
        for server in servers:
            server.forget()


async def _keep(keeper: Keeper) -> None:
    await keeper.keep(await keeper.raise_up())
