"""`apriel dash`: runs as a live page on loopback, for whoever holds the token of this start.

    GET /?token=T                       sets the cookie, then the page
    GET /assets/NAME                    its script and style, from a fixed table
    GET /api/runs                       one card a run
    GET /api/runs/I/frame?since=&low=&high=     series in buckets, or the last ones alone
    GET /api/runs/I/shapes              distributions of lengths and difficulty
    GET /api/runs/I/rollouts?QUERY      a page of rollouts (shelf.Query), or hits of a search for `text`
    GET /api/runs/I/groups/K            a group with its texts
    GET /metrics                        Prometheus; cookie, or Authorization: Bearer T

Runs are asked for by number and groups by number: no part of a path comes from a request. Only loopback
names are answered to (DNS rebinding), and the page may load nothing but its own files (CSP).
"""

import asyncio
import hashlib
import hmac
import logging
import secrets
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from apriel_mcore import http_limits
from apriel_mcore.errors import InputError
from apriel_mcore.rundir import RunDir, existing
from apriel_mcore.views import prometheus
from apriel_mcore.views.assets import ASSETS, asset, index_page
from apriel_mcore.views.runview import RunView
from apriel_mcore.views.shelf import Query

HOST = "127.0.0.1"
MAX_BUCKETS = 400
_REFRESH_S = 1.0
_PAUSE_S = 0.01
_SEARCH_S = 0.4
_MIN_TOKEN = 16
_LOOPBACK_NAMES = {"127.0.0.1", "localhost", "[::1]"}
_TYPES = {"js": "text/javascript", "css": "text/css", "html": "text/html"}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

type _Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class FrameQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which part of the series: buckets from `since` on, if they are as wide as the page has them."""

    width: int = 0
    since: int = 0
    low: int = 0
    high: int = -1
    """-1: to the end."""
    revision: int = -1
    """What the page has seen."""


def runs_of(folders: Sequence[Path]) -> list[RunView]:
    """A view of each run directory; a folder of runs stands for all of them.

    InputError for what is not there, or is neither.
    """
    found: list[Path] = []
    for folder in folders:
        inside = sorted(path.parent for path in folder.glob("*/resolved.toml"))
        if inside and not (folder / "resolved.toml").exists():
            found += inside
        else:
            found.append(existing(folder).root)
    names = [folder.resolve().name for folder in found]
    return [
        RunView(RunDir(folder), name if names.count(name) == 1 else f"{folder.resolve().parent.name}/{name}")
        for folder, name in zip(found, names, strict=True)
    ]


class Dash:
    """The routes over some runs."""

    def __init__(self, runs: Sequence[RunView], token: str) -> None:
        self._runs = runs
        self._token = token.encode()
        self.cookie = f"apriel_{hashlib.sha256(self._token).hexdigest()[:8]}"
        """Cookies know no port: two pages on one host must not share a name."""
        self._watch: asyncio.Task[None] | None = None

    def application(self) -> web.Application:
        """To be served by aiohttp."""
        application = web.Application(client_max_size=1 << 16, middlewares=[self._guard])
        add = application.router.add_get
        add("/", self._page)
        add("/assets/{name}", self._asset)
        add("/api/runs", self._cards)
        add(r"/api/runs/{run:\d{1,4}}/frame", self._frame)
        add(r"/api/runs/{run:\d{1,4}}/shapes", self._shapes)
        add(r"/api/runs/{run:\d{1,4}}/rollouts", self._rollouts)
        add(r"/api/runs/{run:\d{1,4}}/groups/{group:\d{1,9}}", self._group)
        add("/metrics", self._metrics)
        application.cleanup_ctx.append(self._follow)
        return application

    async def _follow(self, application: web.Application) -> AsyncIterator[None]:
        """Read what runs write, for as long as the page is served."""
        watch = asyncio.create_task(self._refresh_forever())
        yield
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)

    async def _refresh_forever(self) -> None:
        while True:
            for run in self._runs:
                await asyncio.to_thread(_refresh, run)
            await asyncio.sleep(_REFRESH_S)

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        if request.host.rpartition(":")[0] not in _LOOPBACK_NAMES and request.host not in _LOOPBACK_NAMES:
            response: web.StreamResponse = web.Response(status=421, text="ask by 127.0.0.1 or localhost")
        elif not self._admits(request):
            response = web.Response(status=401, text="open the address that `apriel dash` printed")
        else:
            try:
                response = await handler(request)
            except msgspec.ValidationError as error:
                response = web.Response(status=400, text=str(error))
            except web.HTTPException as error:
                response = web.Response(status=error.status, text=error.reason)
        response.headers.update(_HEADERS)
        return response

    def _admits(self, request: web.Request) -> bool:
        bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
        asked = request.query.get("token", "") if request.path == "/" else ""
        given = (request.cookies.get(self.cookie, ""), bearer, asked)
        return any(hmac.compare_digest(one.encode(errors="replace"), self._token) for one in given)

    async def _page(self, request: web.Request) -> web.Response:
        if "token" not in request.query:
            return web.Response(text=index_page(), content_type="text/html")
        response = web.Response(status=303, headers={"Location": "/"})
        response.set_cookie(self.cookie, self._token.decode(), httponly=True, samesite="Strict", path="/")
        return response

    async def _asset(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in ASSETS:
            raise web.HTTPNotFound
        return web.Response(text=asset(name), content_type=_TYPES[name.rpartition(".")[2]])

    async def _cards(self, request: web.Request) -> web.Response:
        cards = [await self._read(run, run.card) for run in self._runs]
        return _json(request, cards)

    async def _frame(self, request: web.Request) -> web.Response:
        run, query = self._run(request), msgspec.convert(dict(request.query), FrameQuery, strict=False)
        return _json(request, await self._read(run, partial(_frame_of, run, query)))

    async def _shapes(self, request: web.Request) -> web.Response:
        run = self._run(request)
        return _json(request, await self._read(run, run.shapes))

    async def _rollouts(self, request: web.Request) -> web.Response:
        run, query = self._run(request), msgspec.convert(dict(request.query), Query, strict=False)
        if query.offset < 0:
            raise web.HTTPBadRequest
        look = (
            partial(run.shelf.search, query, seconds=_SEARCH_S)
            if query.text
            else partial(run.shelf.page, query)
        )
        return _json(request, await self._read(run, look))

    async def _group(self, request: web.Request) -> web.Response:
        run, group = self._run(request), int(request.match_info["group"])
        try:
            return _json(request, await self._read(run, partial(run.shelf.group, group)))
        except (KeyError, FileNotFoundError):
            raise web.HTTPNotFound from None

    async def _metrics(self, request: web.Request) -> web.Response:
        pages = [await self._read(run, partial(prometheus.samples, run)) for run in self._runs]
        text = prometheus.exposition([sample for page in pages for sample in page])
        return web.Response(text=text, headers={"Content-Type": prometheus.CONTENT_TYPE})

    def _run(self, request: web.Request) -> RunView:
        number = int(request.match_info["run"])
        if number >= len(self._runs):
            raise web.HTTPNotFound
        return self._runs[number]

    async def _read[T](self, run: RunView, look: Callable[[], T]) -> T:
        return await asyncio.to_thread(_locked, run, look)


def _refresh(run: RunView) -> None:
    """To the end of its files, with a pause after every piece for whoever asks meanwhile."""
    more = True
    while more:
        with run.lock:
            more = run.refresh()
        time.sleep(_PAUSE_S)


def _locked[T](run: RunView, look: Callable[[], T]) -> T:
    with run.lock:
        return look()


def _frame_of(run: RunView, query: FrameQuery) -> dict[str, Any]:
    """Buckets from `since` on where the page's are as wide as ours, else all; empty if it has seen them."""
    if query.revision == run.revision:
        return {"revision": run.revision, "unchanged": True}
    high = None if query.high < 0 else query.high
    width = run.steps.width_for(MAX_BUCKETS, low=query.low, high=high)
    low = max(query.low, query.since) if query.width == width else query.low
    return {
        "revision": run.revision,
        "steps": run.steps.frame(width, low=low, high=high),
        "receipts": run.receipts_frame(MAX_BUCKETS),
    }


def _json(request: web.Request, content: object) -> web.Response:
    response = web.Response(body=msgspec.json.encode(content), content_type="application/json")
    response.enable_compression()
    return response


def read_token(file: Path | None) -> str:
    """The token of a file, or a new one. InputError for a file without a good one."""
    if file is None:
        return secrets.token_urlsafe(24)
    if not file.is_file():
        raise InputError(f"--token-file {file}: no such file")
    token = file.read_text(encoding="utf-8").strip()
    if len(token) < _MIN_TOKEN or not token.isascii():
        raise InputError(f"--token-file {file}: needs at least {_MIN_TOKEN} ASCII characters")
    return token


def serve(folders: Sequence[Path], *, port: int, token: str) -> None:
    """Serve until SIGINT or SIGTERM. InputError when a run is not there or the port is taken."""
    asyncio.run(_serve(runs_of(folders), port, token))


def _is_ours(record: logging.LogRecord) -> bool:
    """What is no HTTP gets its 400 and no traceback: whoever knocks does not write on this terminal."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


@asynccontextmanager
async def listening(dash: Dash, port: int) -> AsyncIterator[int]:
    """Serve on loopback; the port, which 0 leaves to the system. InputError when it is taken."""
    logging.getLogger("aiohttp.server").addFilter(_is_ours)
    runner = http_limits.runner(dash.application())
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, HOST, port).start()
        except OSError as error:
            reason = error.strerror or error
            raise InputError(f"--port {port}: {reason}; give another, or 0 for any") from None
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def _serve(runs: Sequence[RunView], port: int, token: str) -> None:
    async with listening(Dash(runs, token), port) as bound:
        print(f"{', '.join(run.name for run in runs)}: http://{HOST}:{bound}/?token={token}", flush=True)
        print(f"from another machine: ssh -N -L {bound}:{HOST}:{bound} THIS_HOST", file=sys.stderr)
        done = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, done.set)
        await done.wait()
