"""How large, and how slow, may the head of a request be, before anybody has seen its token?

    connection --head: at most MAX_HEAD bytes in HEAD_S--> gate.py --> vLLM

By itself uvicorn keeps headers of any size, at any pace, in memory. Importing this module makes ours the
protocol that uvicorn serves with; vLLM has no option for it.
"""

import asyncio

from uvicorn.config import HTTP_PROTOCOLS
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD = 64 << 10
HEAD_S = 20.0
"""A connection may be silent for this long before its first request; between two, uvicorn's limit is less."""


class Door(HttpToolsProtocol):
    """uvicorn's protocol, which closes on heads that are too large or do not end."""

    _limit: asyncio.TimerHandle | None = None
    _size = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Time runs from here."""
        super().connection_made(transport)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """Only what belongs to a head as a whole counts: a body has been let in by the gate."""
        was_in_head = self._limit is not None
        super().data_received(data)
        if was_in_head and self._limit is not None:
            self._size += len(data)
            if self._size > MAX_HEAD:
                self.transport.abort()

    def on_message_begin(self) -> None:
        """Of the next request on the connection."""
        super().on_message_begin()
        self._expect_head()

    def on_headers_complete(self) -> None:
        """The gate sees it now."""
        self._stop_waiting()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing to wait for."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        if self._limit is None:
            self._size = 0
            self._limit = self.loop.call_later(HEAD_S, self._give_up)

    def _stop_waiting(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None

    def _give_up(self) -> None:
        self._limit = None
        self.transport.abort()


HTTP_PROTOCOLS["auto"] = f"{__name__}:{Door.__name__}"
