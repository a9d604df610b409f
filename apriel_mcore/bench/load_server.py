"""A rollout server without a model: HTTP as vLLM speaks it, answers made up, after a delay drawn with a seed.

    python -m apriel_mcore.processes apriel_mcore.bench.load_server SEED MEAN_DELAY_S NUM_TOKENS

It listens on a free port of the loopback interface and prints it. An answer's text ends with the seconds that
it was on this server, so that a bench can tell them from those that its own side adds.
"""

import asyncio
import random
import sys
import time

import msgspec
from aiohttp import web

DELAY_SPREAD = 0.5
"""Delays are uniform in (1 +- spread) of their mean."""
STAGGER = 1.4
"""A group's time in mean delays, about: over so long the first groups are spread."""
SOLVE_RATE = 0.5


class _Request(msgspec.Struct, frozen=True):
    """What matters of a request."""

    max_tokens: int
    prompt: list[int]


_decode = msgspec.json.Decoder(_Request).decode


class LoadServer:
    """The routes that a pool calls."""

    def __init__(self, *, seed: int, mean_delay_s: float, num_tokens: int) -> None:
        self._random = random.Random(seed)
        self._mean_delay_s = mean_delay_s
        self._first_s = 0.0
        self._token_ids = [1000 + i for i in range(num_tokens)]
        self._logprobs = [-0.125 * (1 + i % 7) for i in range(num_tokens)]

    def application(self) -> web.Application:
        """To be served by aiohttp."""
        application = web.Application()
        application.router.add_get("/health", self._health)
        application.router.add_post("/v1/completions", self._complete)
        application.router.add_post("/collective_rpc", self._take)
        application.router.add_post("/update_weight_version", self._noted)
        return application

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _complete(self, request: web.Request) -> web.Response:
        start = time.perf_counter()
        asked = _decode(await request.read())
        await asyncio.sleep(self._delay_s(asked.prompt))
        number = 7 if self._random.random() < SOLVE_RATE else 8
        count = min(asked.max_tokens, len(self._token_ids))
        seconds = time.perf_counter() - start
        choice = {
            "text": f"It is \\boxed{{{number}}} after {seconds:.6f}",
            "finish_reason": "stop",
            "token_ids": self._token_ids[:count],
            "logprobs": {"token_logprobs": self._logprobs[:count]},
        }
        return web.Response(body=msgspec.json.encode({"choices": [choice]}), content_type="application/json")

    def _delay_s(self, prompt: list[int]) -> float:
        """Of the first answers, a time more that siblings share, lest all groups go in step for minutes."""
        delay_s = self._mean_delay_s * self._random.uniform(1 - DELAY_SPREAD, 1 + DELAY_SPREAD)
        self._first_s = self._first_s or time.monotonic()
        if time.monotonic() - self._first_s < self._mean_delay_s * (1 - DELAY_SPREAD):
            delay_s += STAGGER * self._mean_delay_s * random.Random(repr(prompt)).random()
        return delay_s

    async def _take(self, request: web.Request) -> web.Response:
        call = msgspec.json.decode(await request.read())
        read = {"num_tensors": 1, "num_bytes": 1, "digest": call["kwargs"]["version"]}
        result = {"version": int(call["kwargs"]["version"]), "read": read}
        return web.Response(body=msgspec.json.encode({"results": [result]}), content_type="application/json")

    async def _noted(self, _: web.Request) -> web.Response:
        return web.Response(body=b"{}", content_type="application/json")


async def _serve(server: LoadServer) -> None:
    runner = web.AppRunner(server.application(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=4096).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    seed, mean_delay_s, num_tokens = sys.argv[1:]
    asyncio.run(
        _serve(LoadServer(seed=int(seed), mean_delay_s=float(mean_delay_s), num_tokens=int(num_tokens)))
    )
