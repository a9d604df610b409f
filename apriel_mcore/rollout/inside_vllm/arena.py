"""Takes a whole weight version from an arena file of the trainer's host.

    pool --/collective_rpc take_weights(path, version)--> worker -> engine: map, digest, reload --> receipt

Importing this module puts the `apriel_arena` backend into vLLM's weight-transfer registry. The stock start,
update and finish routes work with it too, but their three messages leave a session open if the trainer dies
in between and cannot hand back what was read; `take_weights` is one message that does all three and
returns it.
"""

import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from vllm.config import VllmConfig
from vllm.config.weight_transfer import WeightTransferConfig
from vllm.distributed.weight_transfer.base import WeightTransferUpdateInfo
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

from apriel_mcore.bridge.arena import tensor_views
from apriel_mcore.bridge.receipt import summarize
from apriel_mcore.rollout.inside_vllm.reload import Published, WholeModelEngine
from apriel_mcore.seams import Sent

BACKEND = "apriel_arena"


@dataclass
class ArenaUpdate(WeightTransferUpdateInfo):
    """One version: a safetensors file that this host can map."""

    path: str
    version: int


class ArenaEngine(WholeModelEngine[ArenaUpdate]):
    """Loads an arena file into this worker's shard of the model; `receipt` tells what was read."""

    update_info_cls = ArenaUpdate

    def __init__(
        self,
        config: WeightTransferConfig,
        vllm_config: VllmConfig,
        device: torch.device,
        model: torch.nn.Module,
    ) -> None:
        super().__init__(config, vllm_config, device, model)
        self.receipt = Sent(num_tensors=0, num_bytes=0, digest="")
        """What the last update read; `take_weights` hands it out."""

    def receive_weights(self, update_info: ArenaUpdate) -> None:
        """Replace all weights; BridgeError, with the model untouched, if the file is not exactly a model."""
        with Path(update_info.path).open("rb") as file:
            # Private: torch asks for a writable buffer, and nothing may reach the trainer's pages.
            arena = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE)
        views = tensor_views(arena, where=update_info.path)
        published = {
            name: Published(tuple(view.shape), fp8=view.dtype == torch.float8_e4m3fn)
            for name, view in views.items()
        }
        self.check_complete(published, where=update_info.path)
        receipt = summarize(arena, where=update_info.path)
        self.replace_all(views.items())
        self.receipt = msgspec.structs.replace(receipt, quantised=self.quantised)


class ArenaReceiver:
    """Mixed into vLLM's worker class; its methods are called through `/collective_rpc`."""

    weight_transfer_engine: ArenaEngine

    def take_weights(self, path: str, version: str) -> dict[str, Any]:
        """Load a version in one go; the version and what was read."""
        self.start_weight_update()  # pyright: ignore[reportAttributeAccessIssue]  (vLLM's worker has it)
        self.update_weights({"path": path, "version": int(version)})  # pyright: ignore[reportAttributeAccessIssue]
        self.finish_weight_update()  # pyright: ignore[reportAttributeAccessIssue]
        return {"version": int(version), "read": msgspec.structs.asdict(self.weight_transfer_engine.receipt)}


WeightTransferEngineFactory.register_engine(BACKEND, ArenaEngine)
