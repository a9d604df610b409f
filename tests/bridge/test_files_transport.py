"""A version in a folder: whole or not there, checked before it is used, and older ones go."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from apriel_mcore.bridge.files_transport import FilesTransport
from apriel_mcore.bridge.plan import Coordinates, make_plan
from apriel_mcore.bridge.receipt import check_acks
from apriel_mcore.bridge.version_folder import MANIFEST, read_version
from apriel_mcore.config.schema import Parallel
from apriel_mcore.errors import AprielError, BridgeError, InputError, PoolError
from apriel_mcore.seams import Ack, Offer
from tests.bridge.conftest import make_shape
from tests.bridge.test_stream_transport import ThreadRanks

SHAPE = make_shape()
PARALLEL = Parallel(tensor=2, pipeline=2)
PLAN = make_plan(SHAPE, PARALLEL, "local")


class ReadingServer:
    """publish.ServerSide with one server that reads what it is offered."""

    def __init__(self) -> None:
        self.losses = 0
        self.names: list[list[str]] = []

    def muster(self) -> list[str]:
        return ["server/1"]

    def receive(self, offer: Offer) -> None:
        if self.losses:
            self.losses -= 1
            raise PoolError("gone before it was sent")

    def update(self, offer: Offer) -> Future[list[Ack]]:
        folder = Path(offer.arguments["folder"])
        self.names.append(sorted(path.name for path in folder.parent.iterdir()))
        _, read = read_version(folder, offer.version, offer.arguments["digest"])
        answer: Future[list[Ack]] = Future()
        answer.set_result([Ack(server="s", version=offer.version, seconds=0.0, read_R=(read,))])
        return answer

    def score(self, tokens_T: Sequence[int]) -> list[list[float]]:
        return []


def random_chunks(place: Coordinates) -> list[dict[str, torch.Tensor]]:
    chunks: list[dict[str, torch.Tensor]] = [{} for _ in place.chunks]
    for shard in PLAN.shards_of(place):
        chunks[shard.chunk][shard.parameter] = torch.randn(shard.sizes)
    return chunks


class Run:
    """Four ranks in threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = ReadingServer()
        self._threads = ThreadPoolExecutor(4)
        barrier, boxes = threading.Barrier(4), [b""] * 4
        places = [
            Coordinates(tensor_rank=t, pipeline_rank=p, data_rank=0, context_rank=0, chunks=PLAN.chunks[p])
            for p in (0, 1)
            for t in (0, 1)
        ]
        self.places = places
        self.chunks = [random_chunks(place) for place in places]

        def make(rank: int) -> FilesTransport:
            return FilesTransport(
                plan=PLAN,
                dtype="float32",
                rank=places[rank],
                servers=self.server,
                ranks=ThreadRanks(rank, barrier, boxes),
                folder=folder,
                arrival_timeout_s=5,
            )

        self.transports = self.on_all(make)

    def on_all[Result](self, work: Callable[[int], Result]) -> list[Result]:
        """`work(rank)` on every rank at once."""
        return list(self._threads.map(work, range(4)))

    def publish(self, version: int) -> None:
        deliveries = self.on_all(lambda rank: self.transports[rank].deliver(version, self.chunks[rank]))
        check_acks(deliveries[0].acks, deliveries[0].sent_R, version)
        assert len({delivery.sent_R for delivery in deliveries}) == 1


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    (tmp_path / "run" / "version_000007").mkdir(parents=True)  # of a life before
    started = Run(tmp_path / "run")
    yield started
    started.on_all(lambda rank: started.transports[rank].close())
    assert not started.folder.exists()


def test_stages_write_files_that_together_are_the_model(run: Run) -> None:
    run.publish(0)
    run.publish(1)
    assert run.server.names == [["version_000000"], ["version_000000", "version_000001"]]
    assert [path.name for path in run.folder.iterdir()] == ["version_000001"]
    files = sorted((run.folder / "version_000001").glob("*.safetensors"))
    assert [file.name for file in files] == [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    held = [load_file(file) for file in files]
    assert not held[0].keys() & held[1].keys()
    found = held[0] | held[1]
    assert {name: tuple(tensor.shape) for name, tensor in found.items()} == PLAN.tensors
    for place, chunks in zip(run.places, run.chunks, strict=True):
        for copy in PLAN.exports_of(place):
            source = chunks[copy.chunk][copy.parameter][tuple(slice(*span) for span in copy.shard)]
            target = found[copy.hf][tuple(slice(*span) for span in copy.hf_box)]
            assert source.equal(target), copy


def test_a_server_lost_in_between_is_left_out_of_the_next_attempt(run: Run) -> None:
    run.server.losses = 2
    run.publish(0)
    run.server.losses = 3
    with pytest.raises(AprielError, match="gone before it was sent"):
        run.publish(1)


def test_a_version_is_published_again_beside_the_one_that_servers_read(run: Run) -> None:
    run.publish(3)
    run.publish(3)
    run.publish(3)
    assert run.server.names[1] == ["version_000003", "version_000003-2"]
    assert [path.name for path in run.folder.iterdir()] == ["version_000003"]


def test_an_older_version_that_cannot_be_removed_stops_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.publish(0)

    def busy(*_: object, **__: object) -> None:
        raise OSError(16, "Device or resource busy")

    with monkeypatch.context() as patch:
        patch.setattr("os.rmdir", busy)
        run.publish(1)
        run.publish(1)
        run.publish(1)
    run.publish(2)
    assert [path.name for path in run.folder.iterdir()] == ["version_000002"]


def test_a_rank_that_cannot_write_stops_every_rank(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise InputError("cannot hold 2 GB: No space left on device")

    monkeypatch.setattr("apriel_mcore.bridge.files_transport.Arena.create", refuse)

    def fails(rank: int) -> bool:
        with pytest.raises(BridgeError, match=r"could not be written.*No space left"):
            run.transports[rank].deliver(0, run.chunks[rank])
        return True

    assert all(run.on_all(fails))
    assert not list(run.folder.glob("version_000000"))


def flip(folder: Path) -> None:
    """One bit of a weight."""
    path = folder / "model-00002-of-00002.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def cut(folder: Path) -> None:
    """A file that did not come across whole."""
    path = folder / "model-00001-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[:-8])


@pytest.mark.parametrize(
    ("version", "digest", "damage", "words"),
    [
        (4, "", flip, "was written as .* this host reads"),
        (4, "", cut, "damaged"),
        (4, "", lambda folder: (folder / "model-00001-of-00002.safetensors").unlink(), "No such file"),
        (4, "", lambda folder: (folder / MANIFEST).write_text("{}"), "not a version's manifest"),
        (5, "", lambda folder: None, "holds version 4"),
        (4, "0" * 32, lambda folder: None, "announced was version 4 with 000"),
    ],
)
def test_what_is_not_the_announced_version_is_refused(
    run: Run, version: int, digest: str, damage: Callable[[Path], object], words: str
) -> None:
    run.publish(4)
    (folder,) = run.folder.iterdir()
    _, sent = read_version(folder, 4, digest_of(folder))
    damage(folder)
    with pytest.raises((AprielError, OSError), match=words):
        read_version(folder, version, digest or sent.digest)


def digest_of(folder: Path) -> str:
    return json.loads((folder / MANIFEST).read_text())["sent"]["digest"]
