"""Weights through shared memory: every trainer rank and every server on one host.

    each rank: own boxes --> arena --> barrier --> first rank: digest, offer --> servers map it and answer

The arena that is written is never the one that was offered last.
"""

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path

from apriel_mcore.bridge.arena import ArenaPair
from apriel_mcore.bridge.layouts import Sizes
from apriel_mcore.bridge.plan import Coordinates, Plan
from apriel_mcore.bridge.publish import Delivery, Ranks, ServerSide, check_same_plan, on_first_rank
from apriel_mcore.bridge.receipt import summarize
from apriel_mcore.bridge.reshard import Chunks, ShardExport
from apriel_mcore.bridge.tensorfile import Dtypes
from apriel_mcore.errors import AprielError
from apriel_mcore.seams import Ack, Sent, arena_offer

_log = logging.getLogger(__name__)

ATTEMPTS = 3
"""Of one version; servers that refused it have to come back in between."""


class ArenaTransport:
    """publish.Transport; one on every trainer rank."""

    def __init__(
        self, *, plan: Plan, rank: Coordinates, servers: ServerSide, ranks: Ranks, arenas: ArenaPair
    ) -> None:
        """BridgeError, on every rank, when they did not make the same plan."""
        check_same_plan(plan.digest, ranks)  # before boxes of another plan are looked for in the arenas
        copies = plan.exports_of(rank)
        self._exports = {arena.path: ShardExport(copies, arena) for arena in arenas.both}
        self._servers = servers
        self._ranks = ranks
        self._arenas = arenas

    def deliver(self, version: int, chunks: Chunks) -> Delivery:
        """See Transport. What every server refused is written anew: the bytes may have changed since."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._deliver(version, chunks)
            except AprielError as error:  # on every rank alike
                if attempt == ATTEMPTS:
                    raise
                _log.warning("version %d, attempt %d of %d: %s", version, attempt, ATTEMPTS, error)
        raise AssertionError("the last attempt returns or raises")

    def _deliver(self, version: int, chunks: Chunks) -> Delivery:
        start = time.perf_counter()
        arena = self._arenas.writable
        self._exports[arena.path].run(chunks)
        self._ranks.barrier()
        export_s = time.perf_counter() - start
        acks: list[Ack] = []
        sent: list[Sent] = []

        def hand_over() -> None:
            sent.append(summarize(arena.mapping, where=str(arena.path), threads=_spare_threads()))
            offer = arena_offer(str(arena.path), version, sent_R=tuple(sent))
            acks.extend(self._servers.update(offer).result())

        on_first_rank(self._ranks, hand_over)
        self._arenas.swap()
        return Delivery(acks=tuple(acks), sent_R=tuple(sent), export_s=export_s)

    def close(self) -> None:
        """Remove the arenas."""
        self._exports = {}
        self._arenas.close()


def _spare_threads() -> int:
    """The other trainer ranks wait meanwhile; half the cores stay with the servers."""
    return max(1, min(16, len(os.sched_getaffinity(0)) // 2))


def share_arenas(
    ranks: Ranks, directory: Path, name: str, tensors: Mapping[str, Sizes], dtypes: Dtypes
) -> ArenaPair:
    """The pair that the first rank creates, on every rank.

    InputError on the first rank when there is no room, BridgeError then on the others.
    """
    created: list[ArenaPair] = []
    on_first_rank(ranks, lambda: created.append(ArenaPair.create(directory, name, tensors, dtypes)))
    return created[0] if created else ArenaPair.attach(directory, name)
