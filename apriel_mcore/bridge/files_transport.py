"""Weights as files: for pools on other sites, which see the trainer's folder through some file system.

    each pipeline stage: own boxes --> a file of version_N.partial/, on disk
        --> first rank: manifest, rename --> servers read and check it, requests going on --> they swap
        --> older versions are removed

The tensor ranks of a stage share a host and a file; stages may be on any hosts.
"""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from apriel_mcore.bridge.arena import Arena
from apriel_mcore.bridge.plan import Coordinates, Plan
from apriel_mcore.bridge.publish import Delivery, Ranks, ServerSide, on_first_rank
from apriel_mcore.bridge.receipt import summarize
from apriel_mcore.bridge.reshard import Chunks, export_shard
from apriel_mcore.bridge.scales import by_layers
from apriel_mcore.bridge.tensorfile import Dtype
from apriel_mcore.bridge.version_folder import MANIFEST, Manifest, file_name, joined
from apriel_mcore.checkpoint_folder import write_synced
from apriel_mcore.errors import AprielError, BridgeError, InputError, PoolError
from apriel_mcore.seams import Ack, Offer, Sent

ATTEMPTS = 3
"""Of one version; servers that went meanwhile are left out of the next."""


class _Part(msgspec.Struct, frozen=True, kw_only=True):
    """What a rank's part of the work came to."""

    failure: str
    found: dict[str, Sent]
    """By file."""


class FilesTransport:
    """publish.Transport; one on every trainer rank."""

    def __init__(
        self,
        *,
        plan: Plan,
        dtype: Dtype,
        rank: Coordinates,
        servers: ServerSide,
        ranks: Ranks,
        folder: Path,
        arrival_timeout_s: int,
    ) -> None:
        """folder: this run's own; what an earlier attempt left goes. InputError if it cannot be made."""
        self._copies = plan.exports_of(rank)
        self._file = file_name(rank.pipeline_rank, len(plan.chunks))
        self._files = tuple(file_name(stage, len(plan.chunks)) for stage in range(len(plan.chunks)))
        stage = [copy for copy in plan.copies if copy.pipeline_rank == rank.pipeline_rank]
        held = {copy.hf for copy in stage if copy.exported}
        dtypes = plan.dtypes(dtype)
        self._tensors = {name: sizes for name, sizes in plan.tensors.items() if name in held}
        self._dtypes: dict[str, Dtype] = {name: dtypes[name] for name in self._tensors}
        self._quantised = by_layers(name for name, found in dtypes.items() if found == "float8_e4m3")
        self._creates = rank.exports and rank.tensor_rank == 0
        self._servers = servers
        self._ranks = ranks
        self._folder = folder
        self._arrival_timeout_s = arrival_timeout_s
        self._arena: Arena | None = None
        on_first_rank(ranks, lambda: _make_anew(folder))

    def deliver(self, version: int, chunks: Chunks) -> Delivery:
        """See Transport."""
        start = time.perf_counter()
        partial = self._folder / f"version_{version:06}.partial"
        on_first_rank(self._ranks, lambda: _make_anew(partial))
        self._in_step(lambda: self._create(partial))
        self._in_step(lambda: self._fill(partial, chunks))
        written = self._in_step(self._summarize)
        self._arena = None
        export_s = time.perf_counter() - start
        sent = joined([written[name] for name in self._files], self._quantised)
        acks: list[Ack] = []

        def hand_over() -> None:
            manifest = Manifest(version=version, files=self._files, sent=sent)
            write_synced(partial / MANIFEST, msgspec.json.encode(manifest).decode())
            folder = partial.rename(_unused(partial.with_suffix("")))
            acks.extend(self._hand_over(folder, version, sent))
            for other in self._folder.iterdir():
                if other != folder:  # what a network file system still holds open goes after the next version
                    shutil.rmtree(other, ignore_errors=True)

        on_first_rank(self._ranks, hand_over)
        return Delivery(acks=tuple(acks), sent_R=(sent,), export_s=export_s)

    def close(self) -> None:
        """Remove all versions."""
        if self._ranks.is_first:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _create(self, partial: Path) -> dict[str, Sent]:
        """The stage's file, empty."""
        if self._creates:
            self._arena = Arena.create(partial / self._file, self._tensors, self._dtypes)
        return {}

    def _fill(self, partial: Path, chunks: Chunks) -> dict[str, Sent]:
        """This rank's boxes, on disk."""
        if self._copies:
            arena = self._arena or Arena.attach(partial / self._file)
            export_shard(chunks, self._copies, arena)
            arena.mapping.flush()
        return {}

    def _summarize(self) -> dict[str, Sent]:
        """What the tensor ranks of this stage have written together."""
        if self._arena is None:
            return {}
        return {self._file: summarize(self._arena.mapping, where=self._file)}

    def _in_step(self, work: Callable[[], dict[str, Sent]]) -> dict[str, Sent]:
        """Every rank's work, and what all of them found; BridgeError on every rank when it failed on one."""
        try:
            part = _Part(failure="", found=work())
        except (AprielError, OSError) as error:
            part = _Part(failure=f"{type(error).__name__}: {error}", found={})
        payloads = self._ranks.gather(msgspec.msgpack.encode(part))
        parts = [msgspec.msgpack.decode(payload, type=_Part) for payload in payloads]
        if failures := sorted({one.failure for one in parts if one.failure}):
            raise BridgeError(f"{self._folder}: the weights could not be written: {'; '.join(failures)}")
        return {name: sent for one in parts for name, sent in one.found.items()}

    def _hand_over(self, folder: Path, version: int, sent: Sent) -> list[Ack]:
        """Servers read it, then swap; a server that is lost meanwhile is left out of the next attempt."""
        for attempt in range(1, ATTEMPTS + 1):
            offer = Offer(
                version=version,
                receive="read_files",
                arrived="files_are_read",
                take="take_files",
                arguments={
                    "folder": str(folder),
                    "digest": sent.digest,
                    "wait_s": str(self._arrival_timeout_s),
                },
                members=tuple(self._servers.muster()),
            )
            try:
                self._servers.receive(offer)
                return self._servers.update(offer).result()
            except PoolError:
                if attempt == ATTEMPTS:
                    raise
        raise AssertionError("the last attempt returns or raises")


def _unused(folder: Path) -> Path:
    """A name for a version: that of one published before is left to the servers that read it."""
    names = (folder, *(folder.with_name(f"{folder.name}-{number}") for number in range(2, 1000)))
    return next(name for name in names if not name.exists())


def _make_anew(folder: Path) -> None:
    """An empty folder; InputError when there can be none."""
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"publish.folder: cannot make {folder}: {error.strerror}") from None
