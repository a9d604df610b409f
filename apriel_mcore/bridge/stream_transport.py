"""Weights as messages: each trainer rank sends every server rank what that one keeps, on any hosts.

    first rank: muster, servers begin to receive --meeting--> exporting ranks join and send
        --> every rank's digests, or what broke --> first rank: servers swap, and answer

The servers go on answering until all has arrived (rollout/inside_vllm). When servers come or go, or
anything broke, the next attempt meets anew, under a name that was never used.
"""

import time
from uuid import uuid4

import msgspec
import torch
from torch._C._distributed_c10d import TCPStore

from apriel_mcore.bridge.channel import Backend, Meeting, keep_store, visit_store
from apriel_mcore.bridge.courier import Digests, Sender, sent_to
from apriel_mcore.bridge.plan import Coordinates
from apriel_mcore.bridge.publish import Delivery, Ranks, ServerSide, check_same_plan
from apriel_mcore.bridge.reshard import Chunks
from apriel_mcore.bridge.shape import ModelShape
from apriel_mcore.bridge.stream import Route, make_stream_plan, source_of
from apriel_mcore.errors import AprielError, BridgeError
from apriel_mcore.seams import Ack, Offer

ATTEMPTS = 3
"""Of one version; servers that broke off have to come back in between."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where trainer and servers meet."""

    host: str
    """Address of the first trainer rank, as servers and other ranks reach it."""
    port: int
    """0: a free one."""
    backend: Backend
    timeout_s: int


class _Part(msgspec.Struct, frozen=True, kw_only=True):
    """What one rank did for an attempt."""

    digests: Digests
    failure: str


class _Opening(msgspec.Struct, frozen=True, kw_only=True):
    """What the first rank says before anything is sent."""

    meeting: Meeting
    failure: str


class StreamTransport:
    """publish.Transport; one on every trainer rank."""

    def __init__(
        self,
        *,
        shape: ModelShape,
        route: Route,
        place: Place,
        rank: Coordinates,
        servers: ServerSide,
        ranks: Ranks,
        device: torch.device,
    ) -> None:
        """BridgeError, on every rank, when they do not make the same plan."""
        self._plan = make_stream_plan(shape, route)
        self._plan_digest = self._plan.digest
        check_same_plan(self._plan_digest, ranks)
        self._sender_name = uuid4().hex
        self._route = route
        self._sender = Sender(self._plan, source_of(rank), device) if rank.exports else None
        self._servers = servers
        self._ranks = ranks
        self._members: tuple[str, ...] = ()
        self._is_new = True
        """This rank has not joined the meeting."""
        self._store, self._meeting = _open_store(ranks, place)

    def deliver(self, version: int, chunks: Chunks) -> Delivery:
        """See Transport."""
        failures: list[str] = []
        for _ in range(ATTEMPTS):
            start = time.perf_counter()
            failure = self._begin(version)
            if not failure:
                part = self._send(chunks)
                export_s = time.perf_counter() - start
                parts = [
                    msgspec.msgpack.decode(payload, type=_Part)
                    for payload in self._ranks.gather(msgspec.msgpack.encode(part))
                ]
                acks, failure = self._finish(version, parts)
                if not failure:
                    digests = {number: text for one in parts for number, text in one.digests.items()}
                    sent_R = sent_to(self._plan, digests)
                    return Delivery(acks=acks, sent_R=sent_R, export_s=export_s)
            failures.append(failure)
            self._members = ()
        raise BridgeError(
            f"version {version} could not be sent in {ATTEMPTS} attempts: {'; '.join(failures)}"
        )

    def close(self) -> None:
        """Leave the channels; the store goes with the process."""
        self._sender = None

    def _begin(self, version: int) -> str:
        """All ranks learn who takes part, once those have begun to receive; or what went wrong."""
        opening = _Opening(meeting=self._meeting, failure="")
        if self._ranks.is_first:
            try:
                opening = _Opening(meeting=self._new_meeting(), failure="")
                self._servers.receive(self._offer(version, opening.meeting))
            except AprielError as error:
                opening = _Opening(meeting=self._meeting, failure=str(error))
        known = self._meeting.name
        payload = self._ranks.broadcast(msgspec.msgpack.encode(opening))
        opening = msgspec.msgpack.decode(payload, type=_Opening)
        if not opening.failure:
            self._meeting = opening.meeting
            self._is_new = self._is_new or self._meeting.name != known
        return opening.failure

    def _new_meeting(self) -> Meeting:
        """The last one, unless other servers take part now."""
        members = tuple(self._servers.muster())
        if members == self._members:
            return self._meeting
        self._members = members
        return msgspec.structs.replace(self._meeting, name=uuid4().hex, num_servers=len(members))

    def _offer(self, version: int, meeting: Meeting) -> Offer:
        arguments = {
            "meeting": msgspec.json.encode(meeting).decode(),
            "route": msgspec.json.encode(self._route).decode(),
            "plan": self._plan_digest,
            "sender": self._sender_name,
        }
        return Offer(
            version=version,
            receive="receive",
            arrived="has_arrived",
            take="take_received",
            arguments=arguments,
            members=self._members,
        )

    def _send(self, chunks: Chunks) -> _Part:
        digests: Digests = {}
        failure = ""
        if self._sender:
            try:
                if self._is_new:
                    self._sender.join(self._meeting, self._store)
                self._is_new = False
                digests = self._sender.send(chunks)
            except BridgeError as error:
                failure, self._is_new = str(error), True
        return _Part(digests=digests, failure=failure)

    def _finish(self, version: int, parts: list[_Part]) -> tuple[tuple[Ack, ...], str]:
        """The servers' answers, on the first rank; what went wrong anywhere, on all."""
        failure = "; ".join(sorted({one.failure for one in parts if one.failure}))
        acks: tuple[Ack, ...] = ()
        if self._ranks.is_first:
            offer = self._offer(version, self._meeting)
            if not failure:
                digests = {number: text for one in parts for number, text in one.digests.items()}
                offer = msgspec.structs.replace(offer, sent_R=sent_to(self._plan, digests))
            try:
                acks = tuple(self._servers.update(offer).result())
            except AprielError as error:
                failure = failure or str(error)
        return acks, self._ranks.broadcast(failure.encode()).decode()


def _open_store(ranks: Ranks, place: Place) -> tuple[TCPStore, Meeting]:
    """The store that the first rank keeps, and a meeting there that nobody has joined."""
    store = keep_store(place.host, place.port, place.timeout_s) if ranks.is_first else None
    port = int(ranks.broadcast(str(store.port).encode() if store else b""))
    meeting = Meeting(
        host=place.host,
        port=port,
        name="",
        num_servers=0,
        backend=place.backend,
        timeout_s=place.timeout_s,
    )
    return store or visit_store(meeting), meeting
