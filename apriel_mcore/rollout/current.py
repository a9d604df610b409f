"""Which weights must every server have, and does this one have them?

    Weights --take--> server --what it read--> compared with what was sent, and with what the others read

A server takes a version within a deadline. What it says of weights that are no longer current counts for
nothing, so it may take some beside a swap.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import msgspec

from apriel_mcore.bridge.acks import differences
from apriel_mcore.obs.spans import timed
from apriel_mcore.rollout.client import ServerFailed
from apriel_mcore.rollout.keeper import Life
from apriel_mcore.seams import Ack, Offer, Sent

_log = logging.getLogger(__name__)


class TooSlow(ServerFailed):
    """It did not do in time what a version asks of it."""


class OtherBytes(ServerFailed):
    """It read something else than was sent, or than others did: it is damaged, or what there was to read."""


class Weights(msgspec.Struct, frozen=True):
    """What every server must serve; no offer stands for the checkpoint they start from."""

    offers: tuple[Offer, ...]
    """The latest one, if any."""
    salt: str
    """Of the KV that was computed with them."""

    @property
    def version(self) -> int:
        """-1 for the checkpoint."""
        return self.offers[-1].version if self.offers else -1


class Current:
    """The weights of now, and who has said that it has them."""

    def __init__(self, *, recompute_kv: bool, deadline_s: float) -> None:
        self._recompute_kv = recompute_kv
        self._deadline_s = deadline_s
        self.weights = Weights((), uuid4().hex)
        self.acks: dict[str, Ack] = {}
        """By server."""
        self._read_R: tuple[Sent, ...] = ()
        """What the first server read of them; whoever comes later must have read the same."""

    def replace(self, offer: Offer) -> None:
        """An offer stands; nobody has taken it."""
        self.weights = Weights((offer,), uuid4().hex)
        self.acks, self._read_R = {}, ()

    @asynccontextmanager
    async def deadline(self, server: Life, deed: str) -> AsyncIterator[None]:
        """TooSlow when a deed of the server takes longer than a version may."""
        try:
            async with asyncio.timeout(self._deadline_s):
                yield
        except TimeoutError:
            raise TooSlow(
                f"{server.endpoint.name} has not {deed} within {self._deadline_s:g} s "
                "(publish.server_deadline_s)"
            ) from None

    async def load(self, server: Life, weights: Weights) -> None:
        """Have a server take weights that were offered; ServerFailed when it does not come to have them."""
        name, offer = server.endpoint.name, weights.offers[-1]
        async with self.deadline(server, f"taken version {offer.version}"):
            with timed("take weights", lane=name):
                ack = await server.client.take(offer, name=name)
            if self._recompute_kv:
                await server.client.recompute_kv()
        if self.weights is not weights:
            return
        if offer.sent_R and (wrong := differences(ack, offer.sent_R, offer.version)):
            raise OtherBytes("; ".join(wrong))
        if self._read_R and ack.read_R != self._read_R:
            raise OtherBytes(f"{name} read other bytes of version {ack.version} than those before it")
        self._read_R = ack.read_R
        self.acks[name] = ack
        server.version = ack.version

    async def has_come_to(self, server: Life, weights: Weights) -> bool:
        """Whether a new server has these weights, by now; ServerFailed when that may be tried again.

        What had to be received it may still have from the life before, on the same host; what there was to
        read may have changed since it was written.
        """
        if not weights.offers:
            return True
        try:
            await self.load(server, weights)
        except TooSlow:
            raise
        except ServerFailed as error:
            lasting = bool(weights.offers[-1].receive) or isinstance(error, OtherBytes)
            if not lasting or not await server.client.is_healthy():
                raise
            _log.warning("%s joins with the next version: %s", server.endpoint.name, error)
            return False
        return True
