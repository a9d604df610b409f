"""Judges for other hosts: one VerifierPool behind HTTP, for whoever holds the token.

    POST /judge   Asked (JSON, as wire.py) -> Graded | Done | Refused | Broken | Late;  503: the queue is full
    GET /health   the pool's metrics

A request is decoded into typed records and nothing else; larger ones than MAX_BODY are refused unread.
"""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
from aiohttp import web

from apriel_mcore import http_limits, secret
from apriel_mcore.config.schema import RemoteVerify, RunConfig, Verify
from apriel_mcore.errors import ConfigError, InputError, Starved, VerifierError
from apriel_mcore.types import Problem
from apriel_mcore.verify import wire
from apriel_mcore.verify.grade import VerifierPool
from apriel_mcore.verify.tally import TimedOut
from apriel_mcore.verify.worker import JUDGES

MAX_BODY = 8 << 20
QUEUE_PER_WORKER = 64
"""More than this waiting for each worker: the asker had better ask elsewhere."""
TOKEN_VARIABLE = "APRIEL_VERIFIER_TOKEN"


type _Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Service:
    """The routes over one pool."""

    def __init__(self, pool: VerifierPool, *, token: str, max_waiting: int) -> None:
        self._pool = pool
        self._token = token
        self._max_waiting = max_waiting

    def application(self) -> web.Application:
        """To be served by aiohttp."""
        application = web.Application(client_max_size=MAX_BODY, middlewares=[self._only_with_token])
        application.router.add_post("/judge", self._judge)
        application.router.add_get("/health", self._health)
        return application

    @web.middleware
    async def _only_with_token(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        if not secret.opens(request.headers.get("Authorization", "").encode(errors="replace"), self._token):
            return web.Response(status=401, text="the token is missing or wrong")
        return await handler(request)

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response(self._pool.metrics())

    async def _judge(self, request: web.Request) -> web.Response:
        try:
            asked = wire.decode_asked(await request.read())
        except msgspec.MsgspecError as error:
            return web.Response(status=400, text=str(error))
        if self._pool.num_waiting >= self._max_waiting:
            return web.Response(status=503, text="the queue is full")
        return web.Response(body=wire.json_of(await self._reply(asked)), content_type="application/json")

    async def _reply(self, asked: wire.Asked) -> wire.Reply | wire.Late:
        problem = _problem(asked)
        try:
            match asked.request:
                case wire.Grade(text=text):
                    return wire.Graded(await self._pool.grade(problem, text))
                case wire.Check():
                    await self._pool.self_check(problem)
                    return wire.Done()
        except InputError as error:
            return wire.Refused(str(error))
        except TimedOut as error:
            return wire.Late(str(error))
        except VerifierError as error:
            return wire.Broken(str(error), starved=isinstance(error, Starved))


def _problem(asked: wire.Asked) -> Problem:
    return Problem(
        id=asked.problem_id,
        domain=asked.domain,
        source=asked.source,
        messages=(),
        verifier=asked.request.verifier,
        reference=asked.request.reference,
        split_key=asked.problem_id,
    )


def read_token(path: Path | None) -> str:
    """As secret.read."""
    return secret.read(path, TOKEN_VARIABLE)


def serve(config: RunConfig, *, host: str, port: int, token: str) -> None:
    """Serve until SIGINT or SIGTERM; the judges' libraries and sandbox are proven before the port opens."""
    if isinstance(config.verify, RemoteVerify):
        raise ConfigError('verify.kind = "urls": a service judges itself; serve a recipe with "local"')
    asyncio.run(_serve(config.verify, host=host, port=port, token=token))


async def _serve(config: Verify, *, host: str, port: int, token: str) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with VerifierPool(config) as pool:
        service = Service(pool, token=token, max_waiting=QUEUE_PER_WORKER * config.workers)
        await pool.warm_up(tuple(JUDGES))
        runner = http_limits.runner(service.application())
        await runner.setup()
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
            print(f"judging on {site.name} with {config.workers} workers", file=sys.stderr, flush=True)
            await stop.wait()
        except OSError as error:
            raise InputError(
                f"cannot listen on {host}:{port}: {error.strerror}; choose another --port"
            ) from error
        finally:
            await runner.cleanup()
