"""What does a transport do when servers come, go and refuse? It meets anew, or tells every rank why not."""

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import msgspec
import pytest
import torch

from apriel_mcore.bridge.arena import torch_dtype
from apriel_mcore.bridge.channel import Meeting, visit_store
from apriel_mcore.bridge.courier import Receiver
from apriel_mcore.bridge.plan import Coordinates, make_plan
from apriel_mcore.bridge.quantise import QuantisedTrainer
from apriel_mcore.bridge.receipt import check_acks
from apriel_mcore.bridge.scales import scales_for, with_scales
from apriel_mcore.bridge.stream import Route, make_stream_plan
from apriel_mcore.bridge.stream_transport import Place, StreamTransport
from apriel_mcore.config.schema import Parallel
from apriel_mcore.config.schema.publish import Weights
from apriel_mcore.errors import AprielError, BridgeError, PoolError
from apriel_mcore.seams import Ack, Offer
from tests.bridge.conftest import make_shape
from tests.bridge.test_publish import FakeTrainer, ThreadRanks

SHAPE = make_shape()
PARALLEL = Parallel(pipeline=2)
ROUTE = Route(
    parallel=PARALLEL,
    spec="local",
    num_targets=1,
    dtype="float32",
    weights="as_trained",
    message_elements=100,
)
CPU = torch.device("cpu")


class ReducingRanks(ThreadRanks):
    """And the collective that quantising needs."""

    def maximum(self, values: torch.Tensor) -> None:
        tables = [
            torch.frombuffer(bytearray(box), dtype=values.dtype)
            for box in self.gather(values.numpy().tobytes())
        ]
        values.copy_(torch.stack(tables).amax(0))


class OneServer:
    """publish.ServerSide with one server that really receives, on a thread of its own."""

    def __init__(self, route: Route) -> None:
        self._plan = make_stream_plan(SHAPE, route)
        self.life = 1
        self.refusals = 0
        self.losses = 0
        self.lost = False
        self.meetings: list[str] = []
        self.views: dict[str, torch.Tensor] = {}
        self._receiver = Receiver(self._plan, 0, CPU)
        self._threads = ThreadPoolExecutor(1)
        self._joined = ""
        self._arriving: Future[Ack] = Future()

    def muster(self) -> list[str]:
        if self.lost:
            raise PoolError("no rollout server is left")
        return [f"server/{self.life}"]

    def receive(self, offer: Offer) -> None:
        if self.refusals:
            self.refusals -= 1
            raise PoolError("still receiving")
        self._arriving = self._threads.submit(self._receive, offer)

    def _receive(self, offer: Offer) -> Ack:
        meeting = msgspec.json.decode(offer.arguments["meeting"], type=Meeting)
        if meeting.name != self._joined:
            self.meetings.append(meeting.name)
            self._receiver.join(meeting, 0, visit_store(meeting))
            self._joined = meeting.name
        self.views = {
            name: torch.full(size, torch.nan, dtype=torch_dtype(self._plan.dtypes[name]))
            for name, size in self._plan.sizes_of(0).items()
        }
        return Ack(
            server="s", version=offer.version, seconds=0.0, read_R=(self._receiver.receive(self.views),)
        )

    def update(self, offer: Offer) -> Future[list[Ack]]:
        answer: Future[list[Ack]] = Future()
        ack = self._arriving.result(30)
        if self.losses:
            self.losses -= 1
            self.life += 1
            answer.set_exception(PoolError("no server is left that received it"))
        else:
            answer.set_result([ack])
        return answer

    def score(self, tokens_T: Sequence[int]) -> list[list[float]]:
        return []


class Run:
    """Two pipeline ranks in threads."""

    def __init__(self, route: Route = ROUTE) -> None:
        plan = make_plan(SHAPE, PARALLEL, "local")
        barrier, boxes = threading.Barrier(2), [b"", b""]
        self.server = OneServer(route)
        self._threads = ThreadPoolExecutor(2)
        places = [
            Coordinates(tensor_rank=0, pipeline_rank=p, data_rank=0, context_rank=0, chunks=plan.chunks[p])
            for p in (0, 1)
        ]
        self.trainers = [FakeTrainer(plan, place) for place in places]
        self.scales = scales_for(SHAPE, route.weights)
        quantised_plan = with_scales(plan, self.scales)
        self.publishing = [
            QuantisedTrainer(trainer, quantised_plan, self.scales, ReducingRanks(rank, barrier, boxes))
            if self.scales
            else trainer
            for rank, trainer in enumerate(self.trainers)
        ]

        def build(rank: int) -> StreamTransport:
            return StreamTransport(
                shape=SHAPE,
                route=route,
                place=Place(host="127.0.0.1", port=0, backend="gloo", timeout_s=20),
                rank=places[rank],
                servers=self.server,
                ranks=ThreadRanks(rank, barrier, boxes),
                device=CPU,
            )

        self.transports = list(self._threads.map(build, (0, 1)))

    def deliver(self, version: int) -> list[object]:
        """What each rank returns or raises."""

        def one(rank: int) -> object:
            trainer = self.trainers[rank]
            trainer.step = version
            try:
                return self.transports[rank].deliver(version, self.publishing[rank].chunks())
            except AprielError as error:
                return error

        return list(self._threads.map(one, (0, 1)))


def check_arrived(run: Run, version: int) -> None:
    first, _ = run.deliver(version)
    check_acks(first.acks, first.sent_R, version)  # type: ignore[attr-defined]
    assert all((view == version).all() for view in run.server.views.values())


def test_versions_follow_each_other_in_one_meeting_until_another_life_comes() -> None:
    run = Run()
    check_arrived(run, 1)
    check_arrived(run, 2)
    assert len(run.server.meetings) == 1
    run.server.life = 2
    check_arrived(run, 3)
    assert len(set(run.server.meetings)) == 2


@pytest.mark.parametrize("weights", ["fp8_block", "fp8_tensor"])
def test_fp8_weights_arrive_with_their_scales_in_fewer_bytes(weights: Weights) -> None:
    run = Run(msgspec.structs.replace(ROUTE, weights=weights))
    first, _ = run.deliver(3)
    check_acks(first.acks, first.sent_R, 3)  # type: ignore[attr-defined]
    (sent,) = first.sent_R  # type: ignore[attr-defined]
    assert len(sent.quantised) == 7
    views = run.server.views
    for scale in run.scales.values():
        assert views[scale.weight].dtype == torch.float8_e4m3fn
        assert torch.allclose(views[scale.weight].float() * views[scale.name].amax(), torch.tensor(3.0))
    plain = [name for name in views if name not in run.scales and "_scale" not in name]
    assert all((views[name] == 3).all() for name in plain)
    assert sent.num_bytes == sum(view.numel() * view.itemsize for view in views.values())


def test_a_refusal_costs_no_waiting_and_the_next_attempt_meets_anew() -> None:
    run = Run()
    check_arrived(run, 1)
    run.server.refusals = 1
    check_arrived(run, 2)
    assert len(set(run.server.meetings)) == 2


def test_a_version_that_was_sent_and_lost_is_sent_again() -> None:
    run = Run()
    run.server.losses = 2
    check_arrived(run, 5)
    assert len(set(run.server.meetings)) == 3


@pytest.mark.parametrize("trouble", ["refusals", "losses"])
def test_after_three_attempts_every_rank_is_told_why(trouble: str) -> None:
    run = Run()
    setattr(run.server, trouble, 3)
    for outcome in run.deliver(1):
        assert isinstance(outcome, BridgeError)
        assert "version 1 could not be sent in 3 attempts" in str(outcome)
    check_arrived(run, 1)


def test_a_lost_pool_is_told_to_every_rank() -> None:
    run = Run()
    run.server.lost = True
    for outcome in run.deliver(1):
        assert isinstance(outcome, BridgeError)
        assert "no rollout server is left" in str(outcome)
