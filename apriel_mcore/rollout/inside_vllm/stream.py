"""Takes weight versions that trainer ranks send to this worker, wherever they are.

    pool --receive--> worker: a thread joins the meeting and fills a local arena; requests go on
    pool --has_arrived--> worker: is the thread done?
    pool --take_received--> worker: engine: reload from the arena --> receipt

Each worker keeps two arenas in its host's memory, of the slices that it serves: one is whole while the other
is filled. They outlive the worker, so a server that is started again on the same host has its weights at
once. Importing this module puts the `apriel_stream` backend into vLLM's weight-transfer registry.
"""

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor
from vllm.config import VllmConfig
from vllm.config.weight_transfer import WeightTransferConfig
from vllm.distributed.parallel_state import get_tensor_model_parallel_rank
from vllm.distributed.weight_transfer.base import WeightTransferUpdateInfo
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

from apriel_mcore.bridge import shape
from apriel_mcore.bridge.channel import Meeting, visit_store
from apriel_mcore.bridge.courier import Receiver
from apriel_mcore.bridge.local_copy import Label, LocalCopy
from apriel_mcore.bridge.stream import Route, StreamPlan, make_stream_plan
from apriel_mcore.errors import AprielError, BridgeError
from apriel_mcore.rollout.inside_vllm.reload import Published, WholeModelEngine
from apriel_mcore.seams import Sent

BACKEND = "apriel_stream"

COPY_VARIABLE = "APRIEL_LOCAL_COPY"
"""Environment variable: the folder in memory where this server keeps what it received."""


@dataclass
class StreamUpdate(WeightTransferUpdateInfo):
    """A version that was received, or is being received."""

    sender: str
    version: int
    route: str
    plan: str


class StreamEngine(WholeModelEngine[StreamUpdate]):
    """Receives on a thread, swaps when asked; `receipt` tells what was received."""

    update_info_cls = StreamUpdate

    def __init__(
        self,
        config: WeightTransferConfig,
        vllm_config: VllmConfig,
        device: torch.device,
        model: torch.nn.Module,
    ) -> None:
        super().__init__(config, vllm_config, device, model)
        self._shape = shape.read(self.folder)
        self._rank = get_tensor_model_parallel_rank()
        self._num_ranks = vllm_config.parallel_config.tensor_parallel_size
        self._line: _Line | None = None
        self._thread: threading.Thread | None = None
        self._failure = ""
        self.receipt = Sent(num_tensors=0, num_bytes=0, digest="")
        """Of the last version that was swapped in."""

    def begin_to_receive(self, update: StreamUpdate, meeting: Meeting, member: int) -> None:
        """Starts the thread; BridgeError while an earlier one is still waiting for its trainer."""
        if self._thread and self._thread.is_alive():
            raise BridgeError("still receiving the version before; try again when that has timed out")
        line = self._line_of(update)
        self._failure = ""
        self._thread = threading.Thread(
            target=self._receive, args=(line, update, meeting, member), name="weights", daemon=True
        )
        self._thread.start()

    @property
    def has_arrived(self) -> bool:
        """The thread is done: with the version, or with a failure that `receive_weights` will tell."""
        return not (self._thread and self._thread.is_alive())

    def receive_weights(self, update_info: StreamUpdate) -> None:
        """Swap in the version; BridgeError, with the model untouched, when it is not here whole."""
        if self._thread:
            self._thread.join()
        if self._failure:
            raise BridgeError(f"version {update_info.version} did not arrive: {self._failure}")
        line = self._line_of(update_info)
        found = line.copy.find(line.label(update_info))
        if found is None:
            raise BridgeError(
                f"version {update_info.version} is not on this host: it comes with the next one"
            )
        views, receipt = found
        self.replace_all(self._whole(line, views))
        self.receipt = msgspec.structs.replace(receipt, quantised=self.quantised)

    def _receive(self, line: "_Line", update: StreamUpdate, meeting: Meeting, member: int) -> None:
        try:
            if line.meeting != meeting.name:
                line.receiver.join(meeting, member, visit_store(meeting))
                line.meeting = meeting.name
            line.copy.fill(line.label(update), line.receiver.receive)
        except (AprielError, OSError) as error:
            line.meeting = ""
            self._failure = f"{type(error).__name__}: {error}"

    def _line_of(self, update: StreamUpdate) -> "_Line":
        """What is set up once for a route; BridgeError when this side makes another plan of it."""
        if self._line is None or self._line.route != update.route:
            self._line = _Line(update.route, self._shape, self._rank, self._num_ranks, self.device)
            plan = self._line.plan
            published = {
                name: Published(sizes, fp8=plan.dtypes[name] == "float8_e4m3")
                for name, sizes in plan.whole_sizes.items()
            }
            self.check_complete(published, where="the trainer's model")
        if self._line.plan_digest != update.plan:
            raise BridgeError(
                f"the trainer sends by plan {update.plan[:12]}, this server expects "
                f"{self._line.plan_digest[:12]}: start both with the same code, recipe and model"
            )
        return self._line

    def _whole(self, line: "_Line", views: Any) -> Iterator[tuple[str, Tensor]]:
        """Tensors of whole sizes around the boxes of this rank: vLLM cuts the boxes out again."""
        for name, sizes in line.whole_sizes.items():
            view = views[name]
            if tuple(view.shape) == sizes:
                yield name, view
                continue
            whole = torch.empty(sizes, dtype=view.dtype)
            whole[tuple(slice(*span) for span in line.plan.boxes_R[self._rank][name])] = view
            yield name, whole


class _Line:
    """One route, set up: plan, receiver, and the copy on this host."""

    def __init__(
        self, route: str, model: shape.ModelShape, rank: int, num_ranks: int, device: torch.device
    ) -> None:
        self.route = route
        parsed = msgspec.json.decode(route, type=Route)
        if parsed.num_targets != num_ranks:
            raise BridgeError(
                f"the trainer sends to {parsed.num_targets} tensor ranks (rollout.servers.tensor), "
                f"this server has {num_ranks}"
            )
        self.plan: StreamPlan = make_stream_plan(model, parsed)
        self.plan_digest = self.plan.digest
        self.whole_sizes = self.plan.whole_sizes
        self.receiver = Receiver(self.plan, rank, device)
        self._open = partial(
            LocalCopy,
            Path(os.environ[COPY_VARIABLE]),
            f"rank{rank}",
            self.plan.sizes_of(rank),
            self.plan.dtypes,
        )
        self.meeting = ""

    @cached_property
    def copy(self) -> LocalCopy:
        """Made when it is first used: pages for gigabytes take seconds, which the thread has."""
        return self._open()

    def label(self, update: StreamUpdate) -> Label:
        """The version's name in the copy."""
        return Label(sender=update.sender, version=update.version)


class StreamReceiver:
    """Mixed into vLLM's worker class; its methods are called through `/collective_rpc`."""

    weight_transfer_engine: StreamEngine

    def receive(
        self, sender: str, version: str, route: str, plan: str, meeting: str, member: str
    ) -> dict[str, Any]:
        """Begin to receive a version; returns at once."""
        update = StreamUpdate(sender=sender, version=int(version), route=route, plan=plan)
        place = msgspec.json.decode(meeting, type=Meeting)
        self.weight_transfer_engine.begin_to_receive(update, place, int(member))
        return {"version": int(version)}

    def has_arrived(self) -> dict[str, bool]:
        """Whether nothing more will come. A record, because vLLM makes texts of bare values."""
        return {"arrived": self.weight_transfer_engine.has_arrived}

    def take_received(self, sender: str, version: str, route: str, plan: str, meeting: str) -> dict[str, Any]:
        """Swap in a version that was, or is being, received; the version and what was received."""
        update = {"sender": sender, "version": int(version), "route": route, "plan": plan}
        self.start_weight_update()  # pyright: ignore[reportAttributeAccessIssue]  (vLLM's worker has it)
        self.update_weights(update)  # pyright: ignore[reportAttributeAccessIssue]
        self.finish_weight_update()  # pyright: ignore[reportAttributeAccessIssue]
        return {"version": int(version), "read": msgspec.structs.asdict(self.weight_transfer_engine.receipt)}


WeightTransferEngineFactory.register_engine(BACKEND, StreamEngine)
