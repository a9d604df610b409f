"""Runs inside vLLM's workers: takes a whole weight version from an arena file, at once or not at all.

    pool --/collective_rpc take_weights(path, version)--> worker -> engine: map, digest, reload --> receipt

vLLM imports this module because the server is started with `--worker-extension-cls`; importing it puts
the `apriel_arena` backend into vLLM's weight-transfer registry. The stock start, update and finish
routes work with it too, but their three messages leave a session open if the trainer dies in between
and cannot hand back what was read; `take_weights` is one message that does all three and returns it.

The whole update happens between two engine steps, so requests in flight go on afterwards. (Upstream
engines begin the reload in one message and load in another: a step in between meets meta tensors.)
"""

import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import torch
from vllm.config import VllmConfig
from vllm.config.weight_transfer import WeightTransferConfig
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

from apriel_mcore.bridge.arena import tensor_views
from apriel_mcore.bridge.names import plain_name
from apriel_mcore.bridge.receipt import Sent, summarize
from apriel_mcore.bridge.reshard import tensor_files
from apriel_mcore.bridge.tensorfile import contents
from apriel_mcore.errors import BridgeError

BACKEND = "apriel_arena"

_HEAD = "lm_head.weight"
"""A file may hold a tied head or leave it out."""


class Served(NamedTuple):
    """A tensor of the checkpoint that this server started from."""

    stored_as: str
    """Its name there, which is the one that vLLM's model knows."""
    sizes: tuple[int, ...]


@dataclass
class ArenaInit(WeightTransferInitInfo):
    """Nothing to agree on beforehand: every update names its file."""


@dataclass
class ArenaUpdate(WeightTransferUpdateInfo):
    """One version: a safetensors file that this host can map."""

    path: str
    version: int


class ArenaEngine(WeightTransferEngine[ArenaInit, ArenaUpdate]):
    """Loads an arena file into this worker's shard of the model; `receipt` tells what was read."""

    init_info_cls = ArenaInit
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
        self._tied = _tied_heads(model)
        self._served = _checkpoint(Path(vllm_config.model_config.model))
        if self._tied:
            self._served.pop(_HEAD, None)

    def init_transfer_engine(self, init_info: ArenaInit) -> None:
        """Nothing to set up."""

    def start_weight_update(self) -> None:
        """Nothing yet: the model must stay whole until the bytes are here."""

    def finish_weight_update(self) -> None:
        """Nothing left: `update_weights` returns with the model whole."""

    def shutdown(self) -> None:
        """Nothing is held between updates."""

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """As upstream, but a CPU has no accelerator to synchronise."""
        self.receive_weights(self.parse_update_info(update_info))
        if self.device.type != "cpu":
            torch.accelerator.synchronize()

    def receive_weights(self, update_info: ArenaUpdate) -> None:
        """Replace all weights; BridgeError, with the model untouched, if the file is not exactly a model."""
        with Path(update_info.path).open("rb") as file:
            # Private: torch asks for a writable buffer, and nothing may reach the trainer's pages.
            arena = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE)
        views = tensor_views(arena, where=update_info.path)
        if self._tied:
            views.pop(_HEAD, None)
        self._check(views, where=update_info.path)
        receipt = summarize(arena, where=update_info.path)
        with torch.device(self.device), torch.no_grad():
            initialize_layerwise_reload(self.model)
            weights = ((self._served[name].stored_as, view) for name, view in views.items())
            self.model.load_weights(weights)  # pyright: ignore[reportCallIssue]  (any vLLM model has it)
            finalize_layerwise_reload(self.model, self.model_config)
            for head in self._tied.values():
                _retie(*head)
        self.receipt = receipt

    def _check(self, views: dict[str, torch.Tensor], *, where: str) -> None:
        """Every tensor of the checkpoint that this server started from, and no other, with its sizes.

        vLLM itself is content with half of a fused matrix: it keeps the old weights and says nothing.
        """
        found = {(name, tuple(view.shape)) for name, view in views.items()}
        expected = {(name, tensor.sizes) for name, tensor in self._served.items()}
        if difference := sorted(found ^ expected):
            raise BridgeError(
                f"{where}: {len(difference)} tensors differ from the served checkpoint in name or sizes, "
                f"first {difference[0]}: publish every tensor of the model that the server was started with"
            )


class ArenaReceiver:
    """Mixed into vLLM's worker class; its methods are called through `/collective_rpc`."""

    weight_transfer_engine: ArenaEngine

    def take_weights(self, path: str, version: str) -> dict[str, str | int]:
        """Load a version in one go; what was read: num_tensors, num_bytes, digest, and the version."""
        self.start_weight_update()  # pyright: ignore[reportAttributeAccessIssue]  (vLLM's worker has it)
        self.update_weights({"path": path, "version": int(version)})  # pyright: ignore[reportAttributeAccessIssue]
        self.finish_weight_update()  # pyright: ignore[reportAttributeAccessIssue]
        return msgspec.structs.asdict(self.weight_transfer_engine.receipt) | {"version": int(version)}


def _checkpoint(folder: Path) -> dict[str, Served]:
    """The decoder's tensors in a Hugging Face folder, by plain name; other modalities are not trained."""
    served: dict[str, Served] = {}
    for path in tensor_files(folder):
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as whole,
            memoryview(whole) as view,
        ):
            for stored_as, tensor in contents(view, where=str(path)).items():
                name = plain_name(stored_as)
                if name is not None:
                    served[name] = Served(stored_as, tensor.sizes)
    return served


def _tied_heads(model: torch.nn.Module) -> dict[str, tuple[ParallelLMHead, VocabParallelEmbedding]]:
    """Output heads, by name, that share their weight with an input embedding."""
    tables = [module for module in model.modules() if isinstance(module, VocabParallelEmbedding)]
    inputs = [module for module in tables if not isinstance(module, ParallelLMHead)]
    return {
        name: (head, table)
        for name, head in model.named_modules()
        if isinstance(head, ParallelLMHead)
        for table in inputs
        if head.weight is table.weight
    }


def _retie(head: ParallelLMHead, embedding: VocabParallelEmbedding) -> None:
    """Give a tied head the embedding's new weight.

    The reload sees no weight arrive for the head and keeps the old one, of which the CPU backend holds
    a packed copy: without this the server goes on answering with the previous head.
    """
    head.weight = embedding.weight
    head.quant_method.process_weights_after_loading(head)


WeightTransferEngineFactory.register_engine(BACKEND, ArenaEngine)
