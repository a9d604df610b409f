"""How much, and for how long, do we listen to whoever speaks HTTP to us?

The token is asked for in the handlers; before that, and of what comes back to us, nothing may grow or stay.
"""

from collections.abc import AsyncIterator
from typing import Protocol

from aiohttp import web

SILENCE_S = 30.0
"""A connection without a whole request is closed after this; our clients drop theirs after 15 s."""
_LINGER_S = 2.0
"""For the rest of a body that nobody wants to read."""


class TooLarge(Exception):
    """A body of more than `limit` bytes."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"more than {limit} bytes")


class Body(Protocol):
    """What comes in pieces; aiohttp's StreamReader."""

    def iter_any(self) -> AsyncIterator[bytes]: ...


async def whole(body: Body, *, limit: int) -> bytes:
    """The body to its end, however it was cut into pieces; TooLarge as soon as it is."""
    parts, size = list[bytes](), 0
    async for part in body.iter_any():
        parts.append(part)
        size += len(part)
        if size > limit:
            raise TooLarge(limit)
    return b"".join(parts)


def runner(application: web.Application) -> web.AppRunner:
    """What serves an application, and closes on those who say nothing."""
    return web.AppRunner(application, access_log=None, keepalive_timeout=SILENCE_S, lingering_time=_LINGER_S)
