"""The stream of weights over NCCL: the same messages as over gloo, from and to GPU memory.

NCCL does not let two members share a GPU: with one, the sender is alone; with two, a server rank receives.
"""

from pathlib import Path

import msgspec
import pytest
import torch

from apriel_mcore.bridge.channel import Backend, Meeting, visit_store
from apriel_mcore.bridge.courier import Receiver, Sender, sent_to
from apriel_mcore.bridge.plan import Coordinates, make_plan
from apriel_mcore.bridge.reshard import load_hf_weights
from apriel_mcore.bridge.stream import Route, StreamPlan, make_stream_plan, source_of
from apriel_mcore.config.schema import Parallel
from apriel_mcore.seams import Sent
from tests.bridge.test_courier import SHAPE, Family, new_meeting, weights
from tests.bridge.test_reshard import empty_chunks

__all__ = ["weights"]  # a fixture

NUM_DEVICES = torch.cuda.device_count()  # leaves CUDA uninitialised: members are forks
NCCL = [pytest.mark.gpu, pytest.mark.skipif(NUM_DEVICES == 0, reason="needs a CUDA device")]
TWO = [pytest.mark.gpu, pytest.mark.skipif(NUM_DEVICES < 2, reason="needs two CUDA devices")]
PARALLEL = Parallel()
ROUTE = Route(
    parallel=PARALLEL,
    spec="local",
    num_targets=1,
    dtype="bfloat16",
    weights="as_trained",
    message_elements=500,
)


def device_of(meeting: Meeting, member: int) -> torch.device:
    if meeting.backend == "gloo":
        return torch.device("cpu")
    torch.cuda.set_device(member)
    return torch.device("cuda", member)


def send(plan: StreamPlan, folder: Path, meeting: Meeting) -> dict[int, str]:
    device = device_of(meeting, 0)
    trainer_plan = make_plan(SHAPE, PARALLEL, "local")
    rank = Coordinates(
        tensor_rank=0, pipeline_rank=0, data_rank=0, context_rank=0, chunks=trainer_plan.chunks[0]
    )
    chunks = [
        {name: tensor.to(device) for name, tensor in chunk.items()}
        for chunk in empty_chunks(trainer_plan, rank)
    ]
    load_hf_weights(chunks, trainer_plan, rank, folder)
    sender = Sender(plan, source_of(rank), device)
    sender.join(meeting, visit_store(meeting))
    sender.send(chunks)
    return sender.send(chunks)


def receive(plan: StreamPlan, meeting: Meeting) -> tuple[Sent, dict[str, torch.Tensor]]:
    device = device_of(meeting, 1)
    receiver = Receiver(plan, 0, device)
    receiver.join(meeting, 0, visit_store(meeting))
    views = {
        name: torch.full(size, torch.nan, dtype=torch.bfloat16) for name, size in plan.sizes_of(0).items()
    }
    receiver.receive(views)
    sent = receiver.receive(views)
    return sent, {name: view.float().numpy() for name, view in views.items()}  # type: ignore[misc]


def meeting_of(backend: Backend, family: Family, num_servers: int) -> Meeting:
    return msgspec.structs.replace(new_meeting(family.port), backend=backend, num_servers=num_servers)


@pytest.mark.engine
@pytest.mark.parametrize("backend", ["gloo", pytest.param("nccl", marks=NCCL)])
def test_a_lonely_sender_packs_what_the_folder_holds(
    backend: Backend, weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    plan = make_stream_plan(SHAPE, ROUTE)
    digests = []
    for each in {"gloo": ["gloo"], "nccl": ["gloo", "nccl"]}[backend]:
        folder = tmp_path / each
        folder.mkdir()
        family = Family(folder)
        family.start(send, plan, tmp_path, meeting_of(each, family, 0))
        digests += family.results()
    assert isinstance(digests[0], dict) and len(digests[0]) == len(plan.messages)
    assert all(found == digests[0] for found in digests)


@pytest.mark.engine
@pytest.mark.parametrize("backend", ["gloo", pytest.param("nccl", marks=TWO)])
def test_a_server_rank_holds_what_was_sent(
    backend: Backend, weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    plan = make_stream_plan(SHAPE, ROUTE)
    family = Family(tmp_path)
    meeting = meeting_of(backend, family, 1)
    family.start(send, plan, tmp_path, meeting)
    family.start(receive, plan, meeting)
    digests, (sent, views) = family.results()
    assert (sent,) == sent_to(plan, digests)
    for name, view in views.items():
        assert (view == weights[name].float().numpy()).all(), name
