"""Real processes over gloo: what trainer ranks send is what server ranks hold, and a lost member is noticed.

Trainer ranks (tensor x pipeline) and server ranks (servers x tensor) share no torch.distributed world.
"""

import os
import pickle
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from apriel_mcore.bridge.channel import Meeting, keep_store, visit_store
from apriel_mcore.bridge.courier import Receiver, Sender, sent_to
from apriel_mcore.bridge.names import hf_tensors
from apriel_mcore.bridge.plan import Coordinates, make_plan
from apriel_mcore.bridge.reshard import load_hf_weights
from apriel_mcore.bridge.stream import Route, StreamPlan, make_stream_plan, source_of
from apriel_mcore.config.schema import Parallel
from apriel_mcore.errors import BridgeError
from apriel_mcore.seams import Sent
from tests.bridge.conftest import make_shape
from tests.bridge.test_reshard import empty_chunks

pytestmark = pytest.mark.engine

PARALLEL = Parallel(tensor=2, pipeline=2)
SHAPE = make_shape(groups=4, hidden=32, ffn=48, vocab=131)
NUM_SERVERS = 2
CPU = torch.device("cpu")


def make_route(num_targets: int) -> Route:
    return Route(
        parallel=PARALLEL,
        spec="local",
        num_targets=num_targets,
        dtype="bfloat16",
        weights="as_trained",
        message_elements=500,
    )


class Family:
    """Forked processes, each with one result; they meet at a store that opens when all are there.

    Nothing else may run here when they are forked: a lock that another thread holds stays locked in a fork.
    """

    def __init__(self, folder: Path) -> None:
        torch.set_num_threads(1)
        self._folder = folder
        self.pids: list[int] = []
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]

    def start(self, work: Callable[..., Any], *args: Any) -> None:
        number = len(self.pids)
        pid = os.fork()
        if pid == 0:
            torch.set_num_threads(1)
            try:
                result: Any = work(*args)
            except BaseException as error:
                result = error
            (self._folder / str(number)).write_bytes(pickle.dumps(result))
            os._exit(0)
        self.pids.append(pid)

    def results(self) -> list[Any]:
        store = keep_store("127.0.0.1", self.port, 30)
        for pid in self.pids:
            os.waitpid(pid, 0)
        del store
        paths = [self._folder / str(number) for number in range(len(self.pids))]
        return [pickle.loads(path.read_bytes()) if path.exists() else None for path in paths]


def send(plan: StreamPlan, rank: Coordinates, folder: Path, meeting: Meeting, times: int) -> dict[int, str]:
    trainer_plan = make_plan(SHAPE, PARALLEL, "local")
    chunks = empty_chunks(trainer_plan, rank)
    load_hf_weights(chunks, trainer_plan, rank, folder)
    sender = Sender(plan, source_of(rank), CPU)
    sender.join(meeting, visit_store(meeting))
    digests: dict[int, str] = {}
    for _ in range(times):
        digests = sender.send(chunks)
    return digests


def receive(
    plan: StreamPlan, target: int, member: int, meeting: Meeting, times: int
) -> tuple[Sent, dict[str, torch.Tensor]]:
    receiver = Receiver(plan, target, CPU)
    receiver.join(meeting, member, visit_store(meeting))
    views: dict[str, torch.Tensor] = {}
    sent = Sent(num_tensors=0, num_bytes=0, digest="")
    for _ in range(times):
        views = {
            name: torch.full(size, torch.nan, dtype=torch.bfloat16)
            for name, size in plan.sizes_of(target).items()
        }
        sent = receiver.receive(views)
    return sent, {name: view.float().numpy() for name, view in views.items()}  # type: ignore[misc]


def ranks() -> list[Coordinates]:
    plan = make_plan(SHAPE, PARALLEL, "local")
    return [
        Coordinates(tensor_rank=t, pipeline_rank=p, data_rank=0, context_rank=0, chunks=plan.chunks[p])
        for p in range(PARALLEL.pipeline)
        for t in range(PARALLEL.tensor)
    ]


@pytest.fixture
def weights(tmp_path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(3)
    found = {
        name: torch.randn(size, generator=generator).bfloat16() for name, size in hf_tensors(SHAPE).items()
    }
    save_file(found, tmp_path / "model.safetensors")
    return found


def new_meeting(port: int, timeout_s: int = 30) -> Meeting:
    return Meeting(
        host="127.0.0.1",
        port=port,
        name="first",
        num_servers=NUM_SERVERS,
        backend="gloo",
        timeout_s=timeout_s,
    )


@pytest.mark.parametrize("num_targets", [1, 2, 4])
def test_server_ranks_hold_their_slices_and_both_sides_agree_on_the_bytes(
    num_targets: int, weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    plan = make_stream_plan(SHAPE, make_route(num_targets))
    family = Family(tmp_path)
    meeting = new_meeting(family.port)
    for rank in ranks():
        family.start(send, plan, rank, tmp_path, meeting, 2)
    for member in range(NUM_SERVERS):
        for target in range(num_targets):
            family.start(receive, plan, target, member, meeting, 2)
    results = family.results()
    senders, receivers = results[: len(ranks())], results[len(ranks()) :]
    digests = {number: text for part in senders for number, text in part.items()}
    sent_R = sent_to(plan, digests)
    for index, (sent, views) in enumerate(receivers):
        target = index % num_targets
        assert sent == sent_R[target]
        assert sent.num_bytes == 2 * sum(view.size for view in views.values())
        for name, box in plan.boxes_R[target].items():
            expected = weights[name][tuple(slice(*span) for span in box)].float().numpy()
            assert (views[name] == expected).all(), name
    assert sum(sent.num_bytes for sent in sent_R) == 2 * plan_elements(plan)


def plan_elements(plan: StreamPlan) -> int:
    return sum(message.num_elements for message in plan.messages)


def join_and_die(plan: StreamPlan, member: int, meeting: Meeting) -> None:
    Receiver(plan, 0, CPU).join(meeting, member, visit_store(meeting))
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_server_that_dies_is_an_error_on_every_side_in_time(
    weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    plan = make_stream_plan(SHAPE, make_route(1))
    family = Family(tmp_path)
    meeting = new_meeting(family.port, timeout_s=5)
    start = time.monotonic()
    for rank in ranks():
        family.start(send, plan, rank, tmp_path, meeting, 1)
    family.start(receive, plan, 0, 0, meeting, 1)
    family.start(join_and_die, plan, 1, meeting)
    *sides, dead = family.results()
    assert dead is None
    assert all(isinstance(side, BridgeError) for side in sides), sides
    assert all("stage0-rank0-to0" in str(side) for side in sides[:1])
    assert time.monotonic() - start < 40


def test_a_server_that_does_not_come_is_an_error(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    plan = make_stream_plan(SHAPE, make_route(1))
    family = Family(tmp_path)
    meeting = msgspec.structs.replace(new_meeting(family.port, timeout_s=2), name="nobody")
    family.start(send, plan, ranks()[0], tmp_path, meeting, 1)
    (outcome,) = family.results()
    assert isinstance(outcome, BridgeError)
    assert "member 0 of 3 is alone" in str(outcome)


def test_a_store_that_is_not_there_is_an_error() -> None:
    with pytest.raises(BridgeError, match=r"nobody meets at 127\.0\.0\.1:1"):
        visit_store(new_meeting(1, timeout_s=1))
