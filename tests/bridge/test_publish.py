"""A publish ends with equal bytes and equal log-probs on both sides, or with BridgeError on every rank."""

import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from apriel_mcore.bridge.arena_transport import ArenaTransport, share_arenas
from apriel_mcore.bridge.plan import Coordinates, Plan, make_plan
from apriel_mcore.bridge.publish import Delivery, Probe, VersionPublisher, compare_probe
from apriel_mcore.bridge.receipt import read, summarize
from apriel_mcore.bridge.shape import ModelShape
from apriel_mcore.config.schema import Parallel
from apriel_mcore.errors import AprielError, BridgeError, InputError, PoolError
from apriel_mcore.seams import Ack, Offer

MakeShape = Callable[..., ModelShape]
PARALLEL = Parallel(tensor=2, pipeline=2)
PROBE = Probe(tokens_T=(1, 2, 3), bound=0.05)


class ThreadRanks:
    """The collectives of ranks that are threads; `boxes` holds what each of them said last."""

    def __init__(self, rank: int, barrier: threading.Barrier, boxes: list[bytes]) -> None:
        self.is_first = rank == 0
        self._rank = rank
        self._barrier = barrier
        self._boxes = boxes

    def gather(self, payload: bytes) -> list[bytes]:
        self._boxes[self._rank] = payload
        self._barrier.wait(timeout=20)
        found = list(self._boxes)
        self._barrier.wait(timeout=20)
        return found

    def broadcast(self, payload: bytes) -> bytes:
        return self.gather(payload)[0]

    def barrier(self) -> None:
        self._barrier.wait(timeout=20)


class FakeTrainer:
    """Parameters that are all equal to the step."""

    def __init__(self, plan: Plan, rank: Coordinates) -> None:
        self.coordinates = rank
        self.step = 0
        self.broken: dict[str, float] = {}
        """Parameters whose last element is this number."""
        self._chunks: list[dict[str, Tensor]] = [{} for _ in rank.chunks]
        for shard in plan.shards_of(rank):
            self._chunks[shard.chunk][shard.parameter] = torch.zeros(shard.sizes)

    def chunks(self) -> list[dict[str, Tensor]]:
        for chunk in self._chunks:
            for name, parameter in chunk.items():
                parameter.fill_(self.step)
                if name in self.broken:
                    parameter.view(-1)[-1] = self.broken[name]
        return self._chunks

    def logprobs(self, tokens_T: Sequence[int]) -> list[float]:
        return [-0.1 * self.step] * (len(tokens_T) - 1)


class FakeServers:
    """Two servers that read the arena and answer honestly, unless told otherwise."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.seen: list[float] = []
        self.probe_error = 0.0
        self.tamper: Callable[[Ack], Ack] = lambda ack: ack
        self.dead = False

    def muster(self) -> list[str]:
        return ["a/1", "b/1"]

    def receive(self, offer: Offer) -> None:
        raise AssertionError("an arena needs no receiving")

    def update(self, offer: Offer) -> Future[list[Ack]]:
        answer: Future[list[Ack]] = Future()
        if self.dead:
            answer.set_exception(PoolError("no server is left"))
        else:
            answer.set_result(self._load(offer.arguments["path"], offer.version))
        return answer

    def _load(self, path: str, version: int) -> list[Ack]:
        tensors = load_file(path)
        self.paths.append(path)
        self.seen = sorted({value for tensor in tensors.values() for value in tensor.unique().tolist()})
        sent = summarize(Path(path).read_bytes(), where=path)
        honest = [Ack(server=name, version=version, seconds=0.0, read_R=(sent,)) for name in "ab"]
        return [honest[0], self.tamper(honest[1])]

    def score(self, tokens_T: Sequence[int]) -> list[list[float]]:
        return [[-0.1 * self.seen[0] + self.probe_error] * (len(tokens_T) - 1) for _ in "ab"]


class Run:
    """Four ranks in threads."""

    def __init__(self, shape: ModelShape, directory: Path) -> None:
        plan = make_plan(shape, PARALLEL, "local")
        barrier, boxes = threading.Barrier(4), [b""] * 4
        self.servers = FakeServers()
        self.log = directory / "receipts.jsonl"
        coordinates = [
            Coordinates(tensor_rank=t, pipeline_rank=p, data_rank=0, context_rank=0, chunks=plan.chunks[p])
            for p in (0, 1)
            for t in (0, 1)
        ]
        self.trainers = [FakeTrainer(plan, rank) for rank in coordinates]

        def build(rank: int) -> VersionPublisher:
            ranks = ThreadRanks(rank, barrier, boxes)
            transport = ArenaTransport(
                plan=plan,
                rank=coordinates[rank],
                servers=self.servers,
                ranks=ranks,
                arenas=share_arenas(ranks, directory, "run", plan.tensors, "float32"),
            )
            return VersionPublisher(
                trainer=self.trainers[rank],
                plan=plan,
                transport=transport,
                servers=self.servers,
                ranks=ranks,
                probe=PROBE,
                log=self.log,
            )

        self._pool = ThreadPoolExecutor(4)
        self.publishers = list(self._pool.map(build, range(4)))

    def publish(self, version: int) -> list[AprielError | float]:
        """Every rank's seconds or error."""
        for trainer in self.trainers:
            trainer.step = version
        return list(self._pool.map(lambda publisher: _outcome(publisher, version), self.publishers))


def _outcome(publisher: VersionPublisher, version: int) -> AprielError | float:
    try:
        return publisher.publish(version)
    except AprielError as error:
        return error


@pytest.fixture
def run(small_shape: MakeShape, tmp_path: Path) -> Run:
    return Run(small_shape(), tmp_path)


def test_every_version_arrives_whole_through_alternating_arenas(run: Run) -> None:
    for version in (0, 1, 2):
        seconds = run.publish(version)
        assert all(isinstance(value, float) and value > 0 for value in seconds)
        assert run.servers.seen == [version]
    assert run.servers.paths[0] == run.servers.paths[2] != run.servers.paths[1]
    receipts = read(run.log)
    assert [receipt.version for receipt in receipts] == [0, 1, 2]
    assert receipts[2].servers == ("a", "b")
    assert receipts[2].probe_mean_abs_diff == 0.0
    assert len({receipt.digest for receipt in receipts}) == 3
    assert 0 < receipts[2].export_s <= receipts[2].seconds


def test_closing_leaves_nothing_in_memory(run: Run, tmp_path: Path) -> None:
    run.publish(0)
    for publisher in run.publishers:
        publisher.close()
    assert [path.name for path in tmp_path.iterdir()] == ["receipts.jsonl"]


def assert_all_raise(outcomes: list[AprielError | float], message: str) -> None:
    for outcome in outcomes:
        assert isinstance(outcome, AprielError)
        assert message in str(outcome)
    assert all(isinstance(outcome, BridgeError) for outcome in outcomes[1:])


def test_an_altered_tensor_stops_every_rank(run: Run) -> None:
    def altered(ack: Ack) -> Ack:
        return msgspec.structs.replace(ack, read_R=(msgspec.structs.replace(ack.read_R[0], digest="0" * 32),))

    run.servers.tamper = altered
    assert_all_raise(run.publish(1), "b has digest 00000000000000000000000000000000")
    assert not run.log.exists()


def test_a_server_that_quantised_other_layers_stops_every_rank(run: Run) -> None:
    def quantised(ack: Ack) -> Ack:
        weights = ("model.layers.0-3.mlp.up_proj.weight",)
        return msgspec.structs.replace(
            ack, read_R=(msgspec.structs.replace(ack.read_R[0], quantised=weights),)
        )

    run.servers.tamper = quantised
    assert_all_raise(run.publish(1), "b has quantised ('model.layers.0-3.mlp.up_proj.weight',), sent was ()")
    assert not run.log.exists()


def test_a_server_that_stayed_on_another_version_stops_every_rank(run: Run) -> None:
    run.servers.tamper = lambda ack: msgspec.structs.replace(ack, version=0)
    assert_all_raise(run.publish(1), "b has version 0, sent was 1")


@pytest.mark.parametrize("error", [0.06, -0.2, float("nan")])
def test_a_probe_that_disagrees_stops_every_rank(run: Run, error: float) -> None:
    run.servers.probe_error = error
    assert_all_raise(run.publish(1), "publish.probe_bound = 0.05")


def test_a_probe_within_the_bound_is_recorded(run: Run) -> None:
    run.servers.probe_error = 0.04
    run.publish(1)
    assert read(run.log)[0].probe_mean_abs_diff == pytest.approx(0.04)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_named_on_every_rank_and_not_sent(run: Run, number: float) -> None:
    run.publish(0)
    run.trainers[1].broken = {"decoder.layers.0.mlp.linear_fc1.weight": number}
    run.trainers[2].broken = {"decoder.final_layernorm.weight": number}
    names = r"model\.layers\.0\.mlp\.up_proj\.weight, model\.norm\.weight"
    for outcome in run.publish(1):
        assert isinstance(outcome, BridgeError)
        assert re.search(f"version 1 was not sent, its weights are not finite: {names};", str(outcome))
    assert (len(run.servers.paths), run.servers.seen) == (1, [0.0])
    assert [receipt.version for receipt in read(run.log)] == [0]


def test_a_lost_pool_stops_every_rank(run: Run) -> None:
    run.servers.dead = True
    outcomes = run.publish(1)
    assert isinstance(outcomes[0], PoolError)
    assert_all_raise(outcomes, "no server is left")


def test_probe_statistics_and_answers_of_other_lengths() -> None:
    assert compare_probe([0.0, -1.0], [[0.1, -1.0], [0.0, -1.3]]) == pytest.approx((0.15, 0.3))
    for scores in ([], [[0.0]], [[0.0, 0.0, 0.0]]):
        with pytest.raises(BridgeError, match="2 log-probs"):
            compare_probe([0.0, -1.0], scores)


class Listener:
    """A rank that is not the first, alone; the first rank's words are given."""

    is_first = False

    def __init__(self, word: bytes) -> None:
        self._word = word

    def broadcast(self, payload: bytes) -> bytes:
        return self._word

    def gather(self, payload: bytes) -> list[bytes]:
        return [payload]

    def barrier(self) -> None:
        pass


class NoTransport:
    """Nothing gets that far."""

    def deliver(self, version: int, chunks: object) -> Delivery:
        raise AssertionError("nothing may be sent")

    def close(self) -> None:
        pass


class Alone(Listener):
    """The only rank."""

    is_first = True


def test_no_room_is_told_to_every_rank(tmp_path: Path) -> None:
    huge = {"huge": (10**9, 10**6)}
    with pytest.raises(InputError, match="two weight arenas"):
        share_arenas(Alone(b""), tmp_path, "run", huge, "float32")
    with pytest.raises(BridgeError, match="no space"):
        share_arenas(Listener(b"no space"), tmp_path, "run", huge, "float32")


def test_a_trainer_with_other_parameters_is_refused_before_anything_is_sent(
    small_shape: MakeShape, tmp_path: Path
) -> None:
    plan = make_plan(small_shape(), Parallel(), "local")
    rank = Coordinates(tensor_rank=0, pipeline_rank=0, data_rank=0, context_rank=0, chunks=plan.chunks[0])
    trainer = FakeTrainer(plan, rank)
    del trainer.chunks()[0]["decoder.final_layernorm.weight"]
    with pytest.raises(BridgeError, match=r"missing decoder\.final_layernorm\.weight"):
        VersionPublisher(
            trainer=trainer,
            plan=plan,
            transport=NoTransport(),
            servers=FakeServers(),
            ranks=Alone(b""),
            probe=PROBE,
            log=tmp_path / "receipts.jsonl",
        )
