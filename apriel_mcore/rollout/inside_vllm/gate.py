"""Who may ask a vLLM server anything? vLLM's own key guards /v1 alone, not the routes that take weights.

Handed to vLLM by `--middleware`: every route, also /health, answers 401 without the run's token, and 413 to a
body that says it is larger than any request of ours, before a byte of it is read. Answers are signed with the
life of this server: whoever gave it weights sees when it was started again without them.
"""

import multiprocessing
import os
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from apriel_mcore import secret
from apriel_mcore.rollout.inside_vllm import door as door  # limits what comes before the token is seen

MAX_BODY = 64 << 20
"""A prompt of a million tokens is 8 MiB of JSON."""

type Scope = MutableMapping[str, Any]
type Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
type Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
type Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class Gate:
    """ASGI middleware; the token is in the server's environment."""

    def __init__(self, app: Application) -> None:
        self._app = app
        self._token = os.environ[secret.SERVER_VARIABLE]
        self._life = (secret.LIFE_HEADER.encode(), life().encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if not secret.opens(headers.get(b"authorization", b""), self._token):
            await _refuse(scope, send, 401, b"the token is missing or wrong")
        elif _too_large(headers):
            await _refuse(scope, send, 413, b"the body is too large, or does not say its size")
        else:
            await self._app(scope, receive, self._signed(send))

    def _signed(self, send: Send) -> Send:
        async def sign(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), self._life]
            await send(message)

        return sign


def life() -> str:
    """Another one after each start; the same in all processes that serve one port (`--api-server-count`).

    vLLM starts those, and the engines, from one process above them, and ends all when one ends.
    """
    above = multiprocessing.parent_process()
    if above is None:
        return secrets.token_hex(8)
    since_boot = Path(f"/proc/{above.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    return f"{above.pid}-{since_boot}"


def _too_large(headers: dict[bytes, bytes]) -> bool:
    size = headers.get(b"content-length", b"0")
    return b"transfer-encoding" in headers or not size.isdigit() or int(size) > MAX_BODY


async def _refuse(scope: Scope, send: Send, status: int, text: bytes) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    headers = [(b"content-type", b"text/plain"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})
