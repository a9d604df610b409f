"""A small OpenAI-compatible endpoint that answers, or misbehaves, as a test tells it to."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from aiohttp import web

Reply = str | int | bytes | web.Response
"""What the model says, an HTTP status, a raw body, or a whole response."""


class JudgeServer:
    """`say` maps the number of a request (from 0) and its user turn to a reply."""

    def __init__(self, say: Callable[[int, str], Reply]) -> None:
        self._say = say
        self.requests: list[dict[str, Any]] = []
        self.headers: list[str] = []
        self.busy = self.most_busy = 0
        self.delay_s = 0.0
        self.finish = "stop"
        self.piece_bytes = 0
        """Of a reply that is sent in pieces, after pauses; 0: whole."""

    async def complete(self, request: web.Request) -> web.StreamResponse:
        response = await self._respond(request)
        if not self.piece_bytes:
            return response
        assert isinstance(response.body, bytes)
        stream = web.StreamResponse(status=response.status)
        stream.enable_chunked_encoding()
        await stream.prepare(request)
        for start in range(0, len(response.body), self.piece_bytes):
            await stream.write(response.body[start : start + self.piece_bytes])
            await asyncio.sleep(0.01)
        await stream.write_eof()
        return stream

    async def _respond(self, request: web.Request) -> web.Response:
        body = await request.json()
        number = len(self.requests)
        self.requests.append(body)
        self.headers.append(request.headers.get("Authorization", ""))
        self.busy += 1
        self.most_busy = max(self.most_busy, self.busy)
        try:
            await asyncio.sleep(self.delay_s)
        finally:
            self.busy -= 1
        match self._say(number, body["messages"][-1]["content"]):
            case web.Response() as whole:
                return whole
            case int() as status:
                return web.Response(status=status, text="as told")
            case bytes() as raw:
                return web.Response(body=raw, content_type="application/json")
            case str() as said:
                choice = {"index": 0, "message": {"role": "assistant", "content": said}}
                return web.Response(
                    body=json.dumps({"choices": [choice | {"finish_reason": self.finish}]}).encode(),
                    content_type="application/json",
                )


@contextlib.asynccontextmanager
async def serving(server: JudgeServer) -> AsyncIterator[str]:
    """Its address, up to and with the version."""
    application = web.Application()
    application.router.add_post("/v1/chat/completions", server.complete)
    runner = web.AppRunner(application, shutdown_timeout=0.01)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()
