"""Do the tensor ranks of a server receive their slices, and not a byte more?

    shards of 4 ranks --Sender, gloo--> Receiver of each server rank      bytes counted in the channels

The channels are those of `publish.kind = "stream"`, all ends in threads of one process. What each server rank
holds afterwards is compared bit by bit with its box of the gathered tensors.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from apriel_mcore.bridge.arena import torch_dtype
from apriel_mcore.bridge.channel import Meeting, keep_store, visit_store
from apriel_mcore.bridge.courier import Receiver, Sender
from apriel_mcore.bridge.shape import ModelShape
from apriel_mcore.bridge.stream import Rank, Route, StreamPlan, make_stream_plan
from apriel_mcore.config.schema import Parallel

SERVER_RANKS = (1, 2, 4)
_TIMEOUT_S = 120
_MESSAGE_ELEMENTS = 1 << 25

type Shards = Mapping[Rank, Mapping[str, Tensor]]


def measure(
    shape: ModelShape, parallel: Parallel, shards: Shards, gathered: Mapping[str, Tensor]
) -> dict[str, float]:
    """For servers of 1, 2 and 4 tensor ranks: bytes that were sent, received, and planned."""
    numbers: dict[str, float] = {}
    for num_targets in SERVER_RANKS:
        route = Route(
            parallel=parallel,
            spec="local",
            num_targets=num_targets,
            dtype="bfloat16",
            weights="as_trained",
            message_elements=_MESSAGE_ELEMENTS,
        )
        plan = make_stream_plan(shape, route)
        sent, received = _send(plan, shards, gathered)
        planned = [plan.num_bytes_to(target) for target in range(num_targets)]
        assert received == planned, f"ranks of a server received {received} bytes, the plan says {planned}"
        assert sent == sum(planned), f"{sent} bytes were sent, the plan says {sum(planned)}"
        numbers[f"server_tp{num_targets}_bytes_sent"] = float(sent)
        numbers[f"server_tp{num_targets}_bytes_planned"] = float(sum(planned))
    return numbers


def _send(plan: StreamPlan, shards: Shards, gathered: Mapping[str, Tensor]) -> tuple[int, Sequence[int]]:
    """Bytes that all trainer ranks put into their channels, and that each server rank took out."""
    store = keep_store("127.0.0.1", 0, _TIMEOUT_S)
    meeting = Meeting(
        host="127.0.0.1",
        port=store.port,
        name=f"servers-of-{plan.num_targets}",
        num_servers=1,
        backend="gloo",
        timeout_s=_TIMEOUT_S,
    )
    cpu = torch.device("cpu")

    def send(source: Rank) -> int:
        sender = Sender(plan, source, cpu)
        sender.join(meeting, visit_store(meeting))
        sender.send([shards[source]])
        return sender.num_bytes

    def receive(target: int) -> int:
        views = {
            name: torch.empty(sizes, dtype=torch_dtype(plan.dtypes[name]))
            for name, sizes in plan.sizes_of(target).items()
        }
        receiver = Receiver(plan, target, cpu)
        receiver.join(meeting, 0, visit_store(meeting))
        receiver.receive(views)
        for name, view in views.items():
            wanted = gathered[name][tuple(slice(*span) for span in plan.boxes_R[target][name])]
            assert torch.equal(view.view(torch.int16), wanted.view(torch.int16)), (target, name)
        return receiver.num_bytes

    with ThreadPoolExecutor(len(shards) + plan.num_targets) as threads:
        received = [threads.submit(receive, target) for target in range(plan.num_targets)]
        sent = [threads.submit(send, source) for source in shards]
        return sum(each.result() for each in sent), [each.result() for each in received]
