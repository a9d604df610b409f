"""A TCP link that can be cut, slowed down or garbled: a bad network between a pool and a server.

pool --> Link (its own port) --> server
"""

import asyncio
import socket
import struct
from contextlib import suppress

_CHUNK = 1 << 16
_RESET = struct.pack("ii", 1, 0)


class Link:
    """Forwards connections to a port of this host; runs on one event loop."""

    def __init__(self, target: int) -> None:
        self._target = target
        self.delay_s = 0.0
        """Before each chunk, both ways."""
        self.garble_next = ""
        """Flip bits in the body of the next request that has this in its first chunk."""
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def open(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._forward, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Listen no more, and forward nothing."""
        self._server.close()
        self.reset()
        await asyncio.sleep(0.1)

    def reset(self) -> None:
        """Break every connection with RST."""
        for writer in self._writers:
            found: socket.socket = writer.get_extra_info("socket")
            with suppress(OSError):
                found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            theirs, ours = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, ours}
        try:
            await asyncio.gather(self._copy(reader, ours), self._copy(theirs, writer))
        finally:
            for one in (writer, ours):
                self._writers.discard(one)
                one.close()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while chunk := await reader.read(_CHUNK):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                writer.write(self._garbled(chunk))
                await writer.drain()
            writer.write_eof()

    def _garbled(self, chunk: bytes) -> bytes:
        if not self.garble_next or self.garble_next.encode() not in chunk:
            return chunk
        self.garble_next = ""
        head, blank, body = chunk.partition(b"\r\n\r\n")
        return head + blank + bytes(byte ^ 0x15 for byte in body)
