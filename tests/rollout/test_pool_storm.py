"""Servers die, hang, come, go and are started again unseen, as versions come: nothing stale, nothing lost."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from aiohttp import web

from apriel_mcore.errors import InputError, PoolError
from apriel_mcore.rollout.pool import ServerPool
from apriel_mcore.seams import Completion, arena_offer
from tests.rollout.test_pool import PATIENCE, SAMPLING, FakeServer, send

STUBBORN = msgspec.structs.replace(
    PATIENCE, publish_s=0.5, restarts=10_000, request_attempts=8, backoff_s=0.001, forgiven_after_s=0.0
)
STORM_S = 2.5


class Answering(FakeServer):
    """Answers with the versions that it had at the beginning and at the end."""

    version = -1

    def begin_again(self) -> None:
        self.version, self.life = -1, str(random.random())

    async def wait_ready(self, timeout_s: float) -> None:
        self.begin_again()
        try:
            await super().wait_ready(timeout_s)
        except AttributeError:
            raise PoolError(f"{self.name} died while it started") from None

    async def _complete(self, request: web.Request) -> web.Response:
        first = self.version
        await asyncio.sleep(random.random() * 0.02)
        choice = {
            "text": f"{first}",
            "finish_reason": "length",
            "token_ids": [1],
            "logprobs": {"token_logprobs": [-0.5]},
        }
        return web.json_response({"choices": [choice]})

    async def _load(self, request: web.Request) -> web.Response:
        call = await request.json()
        await asyncio.sleep(random.random() * 0.03)
        response = await super()._load(request)
        if response.status == 200 and call["method"] not in ("receive", "has_arrived"):
            self.version = int(call["kwargs"]["version"])
        return response


class Storm:
    """A pool of three servers, and what happens to it."""

    def __init__(self, pool: ServerPool, fakes: dict[str, Answering], *, received: bool) -> None:
        self._pool = pool
        self._fakes = fakes
        self._received = received
        self._adding: set[asyncio.Task[None]] = set()
        self.answers: list[Completion] = []
        self.version = 0

    async def ask(self) -> None:
        answer = await asyncio.wait_for(self._pool.generate((random.randrange(6),), SAMPLING), 10.0)
        self.answers.append(answer)

    async def publish(self) -> None:
        await asyncio.sleep(random.random() * 0.1)
        self.version += 1
        offer = arena_offer("/a", self.version)
        with suppress(PoolError):  # refused by all: the next one comes
            await asyncio.wait_for(
                send(self._pool, self.version) if self._received else self._pool.update_weights(offer), 5.0
            )

    async def harm(self) -> None:
        await asyncio.sleep(random.random() * 0.05)
        fake = random.choice([*self._fakes.values()])
        match random.randrange(6):
            case 0:
                await fake.die()
            case 1:
                fake.begin_again()
            case 2:
                with suppress(InputError):
                    await asyncio.wait_for(self._pool.fleet.drain(fake.name), 5.0)
                    del self._fakes[fake.name]
            case 3 if len(self._fakes) < 5:
                self._adding.add(asyncio.create_task(self._add(f"server-{len(self._pool.states)}")))
            case 4:
                fake.healthy = False
                await asyncio.sleep(0.06)
                fake.healthy = True
            case _:
                fake.update_gate.clear()
                await asyncio.sleep(random.random() * 0.8)
                fake.update_gate.set()

    async def _add(self, name: str) -> None:
        with suppress(PoolError, InputError):
            added = Answering(name)
            await self._pool.fleet.add(added)
            self._fakes[name] = added

    async def blow(self) -> None:
        """All of it for a while."""
        end = asyncio.get_running_loop().time() + STORM_S

        async def again(deed: Callable[[], Coroutine[Any, Any, None]]) -> None:
            while asyncio.get_running_loop().time() < end:
                await deed()

        await asyncio.gather(*(again(self.ask) for _ in range(12)), again(self.publish), again(self.harm))
        for task in self._adding:
            task.cancel()
        await asyncio.gather(*self._adding, return_exceptions=True)


@pytest.mark.parametrize("received", [False, True])
@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_stale_and_nothing_lost(seed: int, received: bool) -> None:
    async def play() -> Storm:
        fakes = {name: Answering(name) for name in ("a", "b", "c")}
        async with ServerPool([*fakes.values()], places=4, recompute_kv=False, patience=STUBBORN) as pool:
            await pool.update_weights(arena_offer("/a", 0))
            storm = Storm(pool, fakes, received=received)
            await asyncio.wait_for(storm.blow(), 30.0)
            return storm

    random.seed(seed)
    storm = asyncio.run(play())
    assert len(storm.answers) > 100 and storm.version > 5
    stale = [answer for answer in storm.answers if int(answer.text) < answer.version_first]
    assert not stale
