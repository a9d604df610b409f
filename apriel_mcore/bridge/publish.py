"""How does a weight version move from the trainer into the pool, and how do we know that it did?

Every trainer rank calls `publish` in step with the others:

    all ranks: every weight is a number -> transport: parameters -> servers, answers of the servers
        -> log-probs of the probe text -> first rank: answers compared -> probe compared -> receipt

`publish` waits for the servers; what the first rank finds, good or bad, is told to every rank, so
that either all return or all raise BridgeError. How the bytes travel is the transport's affair:
arena_transport.py (shared memory), stream_transport.py (messages to each server rank).
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Protocol

import msgspec

from apriel_mcore.bridge.finite import not_finite
from apriel_mcore.bridge.plan import Coordinates, Plan
from apriel_mcore.bridge.receipt import Receipt, append, check_acks, together
from apriel_mcore.bridge.reshard import Chunks, check_shards
from apriel_mcore.errors import AprielError, BridgeError
from apriel_mcore.obs.spans import span
from apriel_mcore.seams import Ack, Offer, Sent


class Ranks(Protocol):
    """Collectives over all trainer ranks, with a finite timeout (mcore/parallel.py)."""

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that owns the pool and writes files."""
        ...

    def broadcast(self, payload: bytes) -> bytes:
        """The first rank's payload, on every rank."""
        ...

    def gather(self, payload: bytes) -> list[bytes]:
        """Every rank's payload, in their order, on every rank."""
        ...

    def barrier(self) -> None:
        """Wait for every rank."""
        ...


class ServerSide(Protocol):
    """The pool, as seen from outside its event loop; only the first rank calls it."""

    def muster(self) -> list[str]:
        """Names of the servers that the next update will reach, in order; blocks until there is one."""
        ...

    def receive(self, offer: Offer) -> None:
        """Have the offer's members begin to receive it; PoolError when one of them does not."""
        ...

    def update(self, offer: Offer) -> Future[list[Ack]]:
        """Begin to put a version on every server; the future raises PoolError when none took it."""
        ...

    def score(self, tokens_T: Sequence[int]) -> list[list[float]]:
        """Per server: log-prob of each token after the first. Blocks."""
        ...


class Trainer(Protocol):
    """This rank's side of the weights (mcore/learner.py)."""

    @property
    def coordinates(self) -> Coordinates:
        """Where the rank stands and which layers it holds."""
        ...

    def chunks(self) -> Chunks:
        """Named parameters of each model chunk, as of the last optimizer step; collective.

        With overlapped parameter gather the raw parameters are older than that.
        """
        ...

    def logprobs(self, tokens_T: Sequence[int]) -> list[float]:
        """Log-prob of each token after the first, equal on all ranks; collective."""
        ...


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """What a transport did with a version."""

    acks: tuple[Ack, ...]
    """On the first rank."""
    sent_R: tuple[Sent, ...]
    """By tensor rank of a server, or one entry for all; on the first rank."""
    export_s: float
    """Seconds until this rank's own part of the work was done."""


class Transport(Protocol):
    """A way for weights to travel; one on every trainer rank."""

    def deliver(self, version: int, chunks: Chunks) -> Delivery:
        """Put the weights on every server; collective. AprielError on every rank when that failed."""
        ...

    def close(self) -> None:
        """Give back what was taken for it."""
        ...


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """A text that trainer and servers must agree on."""

    tokens_T: tuple[int, ...]
    bound: float
    """Largest mean |log-prob difference| that is accepted."""


class VersionPublisher:
    """seams.Publisher; one on every trainer rank."""

    def __init__(
        self,
        *,
        trainer: Trainer,
        plan: Plan,
        transport: Transport,
        servers: ServerSide,
        ranks: Ranks,
        probe: Probe,
        log: Path,
    ) -> None:
        """Checks plan and parameters at once: BridgeError names what does not fit.

        `servers` and `log` (receipts.jsonl) are used by the first rank only.
        """
        check_same_plan(plan.digest, ranks)
        check_shards(trainer.chunks(), plan, trainer.coordinates)
        self._exports = plan.exports_of(trainer.coordinates)
        self._plan_digest = plan.digest
        self._trainer = trainer
        self._transport = transport
        self._servers = servers
        self._ranks = ranks
        self._probe = probe
        self._log = log

    @span("publish")
    def publish(self, version: int) -> float:
        """Blocks until every server answers with `version` and the probe agrees; seconds it took.

        BridgeError, on every rank, when a weight is not finite (then nothing was sent), when weights or probe
        differ, or the pool is lost.
        """
        start = time.perf_counter()
        chunks = self._trainer.chunks()
        self._check_finite(version, chunks)
        delivery = self._transport.deliver(version, chunks)
        logprobs_T = self._trainer.logprobs(self._probe.tokens_T)
        on_first_rank(self._ranks, lambda: self._confirm(version, delivery, logprobs_T, start))
        return time.perf_counter() - start

    def close(self) -> None:
        """Nothing can be published afterwards."""
        self._transport.close()

    def _check_finite(self, version: int, chunks: Chunks) -> None:
        """Of what any rank would send."""
        own = msgspec.json.encode(not_finite(chunks, self._exports))
        found = {
            name for names in self._ranks.gather(own) for name in msgspec.json.decode(names, type=list[str])
        }
        if found:
            shown = ", ".join(sorted(found)[:8]) + (f" and {len(found) - 8} more" if len(found) > 8 else "")
            broken = (
                "the step before broke them: go on from an earlier checkpoint, with less train.optimizer.lr"
            )
            cause = broken if version > 0 else "they are so in the model folder"
            raise BridgeError(f"version {version} was not sent, its weights are not finite: {shown}; {cause}")

    @span("confirm")
    def _confirm(self, version: int, delivery: Delivery, logprobs_T: list[float], start: float) -> None:
        """Comparison of bytes and of log-probs, receipt. First rank only."""
        check_acks(delivery.acks, delivery.sent_R, version)
        mean, largest = compare_probe(logprobs_T, self._servers.score(self._probe.tokens_T))
        if not mean <= self._probe.bound:  # also when it is not a number
            raise BridgeError(
                f"version {version}: the servers answer the probe text {mean:.4f} away from the trainer "
                f"(mean |log-prob difference|, largest {largest:.4f}; publish.probe_bound = "
                f"{self._probe.bound}): they do not run the weights that were sent, or round "
                "otherwise than the trainer (train.fp8, train.precision, rollout.servers.dtype) and need a "
                "wider bound"
            )
        sent = together(delivery.sent_R)
        receipt = Receipt(
            version=version,
            num_tensors=sent.num_tensors,
            num_bytes=sent.num_bytes,
            digest=sent.digest,
            plan=self._plan_digest,
            probe_mean_abs_diff=mean,
            probe_max_abs_diff=largest,
            servers=tuple(ack.server for ack in delivery.acks),
            quantised=sent.quantised,
            seconds=time.perf_counter() - start,
            export_s=delivery.export_s,
            time=time.time(),
        )
        append(receipt, self._log)


def compare_probe(logprobs_T: Sequence[float], scores: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Mean |difference| of the worst server, and the largest of all; BridgeError if nothing is comparable."""
    if not logprobs_T or not scores or any(len(score_T) != len(logprobs_T) for score_T in scores):
        lengths = [len(score_T) for score_T in scores]
        raise BridgeError(f"the probe has {len(logprobs_T)} log-probs, the servers answered with {lengths}")
    gaps = [
        [abs(ours - theirs) for ours, theirs in zip(logprobs_T, score_T, strict=True)] for score_T in scores
    ]
    return max(sum(gaps_T) / len(gaps_T) for gaps_T in gaps), max(max(gaps_T) for gaps_T in gaps)


def check_same_plan(digest: str, ranks: Ranks) -> None:
    """BridgeError, on every rank, unless all of them made the plan of this digest; collective."""
    digests_R = [payload.decode() for payload in ranks.gather(digest.encode())]
    others = {rank: found for rank, found in enumerate(digests_R) if found != digests_R[0]}
    if others:
        listed = ", ".join(f"rank {rank} by {found[:12]}" for rank, found in others.items())
        raise BridgeError(
            f"the ranks would move weights by different plans: rank 0 by {digests_R[0][:12]}, {listed}: "
            "start every rank with the same code, recipe and model"
        )


def on_first_rank(ranks: Ranks, work: Callable[[], None]) -> None:
    """Do `work` on the first rank; every rank waits for it, and raises if it failed."""
    if not ranks.is_first:
        failure = ranks.broadcast(b"").decode()
        if failure:
            raise BridgeError(f"the first rank failed: {failure}")
        return
    try:
        work()
    except AprielError as error:
        ranks.broadcast(str(error).encode() or b"unknown")
        raise
    ranks.broadcast(b"")
