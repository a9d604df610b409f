"""How is the pool of a running run asked to grow or shrink? By files in its run directory: no port.

    apriel pool add | drain --ID.order.json--> RUN_DIR/pool/ --first trainer rank--> ID.reply.json
                                               RUN_DIR/pool/servers.json, every 2 s: apriel pool list

Who may write into the run directory may give orders. They are typed records; anything else is answered with
an error. Orders are carried out beside each other; a restarted run begins with the servers of its recipe.
"""

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import msgspec

from apriel_mcore.disk import is_disk_full
from apriel_mcore.errors import AprielError, InputError
from apriel_mcore.rollout.keeper import Endpoint, ServerRecord
from apriel_mcore.rollout.pool import ServerPool
from apriel_mcore.rollout.server import RemoteServer

SHOWN_EVERY_S = 2.0
_LOOK_S = 0.5
SILENT_S = 15.0
"""A list older than this is of a run that does not go on."""
_MAX_ORDER = 64 << 10


class AddLocal(msgspec.Struct, frozen=True, tag="add_local"):
    """One more server of the recipe's kind on the host of the first trainer rank."""


class AddUrl(msgspec.Struct, frozen=True, tag="add_url"):
    """A server that somebody else started."""

    url: str


class Drain(msgspec.Struct, frozen=True, tag="drain"):
    """A server goes when it has answered what it was asked."""

    name: str


type Order = AddLocal | AddUrl | Drain


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an order."""

    message: str
    exit_code: int = 0


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """The servers at a time, seconds since the epoch."""

    time: float
    servers: list[ServerRecord]


_decode_order: msgspec.json.Decoder[Order] = msgspec.json.Decoder(AddLocal | AddUrl | Drain)
_decode_reply = msgspec.json.Decoder(Reply)
_decode_listing = msgspec.json.Decoder(Listing)


class OrderDesk:
    """The running side, on the pool's event loop. `make_local` makes local server number n, or InputError."""

    def __init__(
        self,
        folder: Path,
        pool: ServerPool,
        *,
        make_local: Callable[[int], Endpoint],
        remote_token: Callable[[], str],
    ) -> None:
        self._folder = folder
        self._pool = pool
        self._make_local = make_local
        self._remote_token = remote_token
        self._num_local = len(pool.fleet.keepers)
        self._working: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Carry out orders until cancelled; those of an earlier attempt are forgotten."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for stale in self._folder.glob("*.json"):
            with suppress(OSError):
                stale.unlink()
        shown = 0.0
        while True:
            for path in sorted(self._folder.glob("*.order.json")):
                with suppress(OSError):  # no file, or not for us: the others are carried out
                    self._begin(path.name, _taken(path))
            if time.monotonic() - shown > SHOWN_EVERY_S:
                shown = time.monotonic()
                self._show()
            await asyncio.sleep(_LOOK_S)

    def _begin(self, name: str, content: bytes) -> None:
        task = asyncio.create_task(self._carry_out(name, content))
        self._working.add(task)
        task.add_done_callback(self._working.discard)

    def _show(self) -> None:
        """The servers as they are now; where the file system does not take it, a moment later."""
        with suppress(OSError):
            _write(self._listing, Listing(time=time.time(), servers=self._pool.roll()))

    @property
    def _listing(self) -> Path:
        return self._folder / "servers.json"

    async def _carry_out(self, name: str, content: bytes) -> None:
        try:
            reply = Reply(message=await self._do(_decode_order.decode(content)))
        except msgspec.MsgspecError as error:
            reply = Reply(message=f"{name}: not an order: {error}", exit_code=InputError.exit_code)
        except AprielError as error:
            reply = Reply(message=str(error), exit_code=error.exit_code)
        _write(self._folder / name.replace(".order.", ".reply."), reply)
        self._show()

    async def _do(self, order: Order) -> str:
        match order:
            case AddLocal():
                endpoint = self._make_local(self._num_local)
                self._num_local += 1
                await self._pool.fleet.add(endpoint)
                return f"{endpoint.name} serves at {endpoint.url}"
            case AddUrl(url=url):
                endpoint = RemoteServer(checked_url(url), token=self._remote_token())
                await self._pool.fleet.add(endpoint)
                return f"{endpoint.name} serves"
            case Drain(name=name):
                await self._pool.fleet.drain(name)
                return f"{name} has answered all that it was asked and is retired"


def give(folder: Path, order: Order, *, timeout_s: float) -> Reply:
    """The asking side: leave an order and wait for its reply. InputError when no run listens."""
    listing(folder)
    name = uuid4().hex
    _write(folder / f"{name}.order.json", order)
    reply = folder / f"{name}.reply.json"
    deadline = time.monotonic() + timeout_s
    while not reply.exists():
        if time.monotonic() > deadline:
            raise AprielError(f"no reply within {timeout_s:g} s; `apriel pool list` shows how it goes on")
        time.sleep(0.2)
        listing(folder)
    answer = _decode_reply.decode(reply.read_bytes())
    reply.unlink()
    return answer


def listing(folder: Path) -> list[ServerRecord]:
    """The servers of a running run; InputError when there is none."""
    path = folder / "servers.json"
    try:
        shown = _decode_listing.decode(path.read_bytes())
    except FileNotFoundError:
        raise InputError(
            f"{path}: not there; is the run going on, and past the start of its servers?"
        ) from None
    silent_s = time.time() - shown.time
    if silent_s > SILENT_S:
        raise InputError(f"{path}: {silent_s:.0f} s old; the run does not go on")
    return shown.servers


def checked_url(url: str) -> str:
    """The URL; InputError unless it is http://HOST:PORT."""
    try:
        parts = urlsplit(url)
        plain = parts.scheme == "http" and parts.hostname and parts.port and not parts.path.strip("/")
        plain = plain and not set(url) & set("@?#")  # no secret: it would be the server's name in every event
    except ValueError:
        plain = False
    if not plain:
        raise InputError(f"{url}: not the address of a server; give http://HOST:PORT")
    return url


def _taken(path: Path) -> bytes:
    """An order's content; it is not found again."""
    with path.open("rb") as file:
        content = file.read(_MAX_ORDER)
    path.unlink()
    return content


def _write(path: Path, record: msgspec.Struct) -> None:
    """Whole or not at all; not at all on a full disk."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(msgspec.json.encode(record))
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        if not is_disk_full(error):
            raise
