"""How are all weights of a running vLLM model replaced, between two of its steps?

Upstream engines begin a reload in one message and load in another: a step in between meets meta tensors.
Ours check first and then do everything in one go, so that requests in flight go on afterwards, and a
version that does not fit leaves the model as it was.
"""

import mmap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from vllm.config import VllmConfig
from vllm.config.weight_transfer import WeightTransferConfig
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

from apriel_mcore.bridge.names import HF_HEAD, plain_name
from apriel_mcore.bridge.reshard import tensor_files
from apriel_mcore.bridge.scales import SCALE_SUFFIX, by_layers, scale_sizes
from apriel_mcore.bridge.tensorfile import contents
from apriel_mcore.errors import BridgeError
from apriel_mcore.rollout.inside_vllm.fp8 import quantised_weights, scheme_of


class Served(NamedTuple):
    """A tensor of the checkpoint that this server started from."""

    stored_as: str
    """Its name there, which is the one that vLLM's model knows."""
    sizes: tuple[int, ...]


class Published(NamedTuple):
    """A tensor of a version."""

    sizes: tuple[int, ...]
    fp8: bool


@dataclass
class NoInit(WeightTransferInitInfo):
    """Nothing to agree on before the first update."""


class WholeModelEngine[Update: WeightTransferUpdateInfo](WeightTransferEngine[NoInit, Update]):
    """Base of our engines: `replace_all` swaps the model's weights; subclasses say where they come from."""

    init_info_cls = NoInit

    def __init__(
        self,
        config: WeightTransferConfig,
        vllm_config: VllmConfig,
        device: torch.device,
        model: torch.nn.Module,
    ) -> None:
        super().__init__(config, vllm_config, device, model)
        self.folder = Path(vllm_config.model_config.model)
        self._tied = _tied_heads(model)
        served = _checkpoint(self.folder)
        if self._tied:
            served.pop(HF_HEAD, None)
        quantised = quantised_weights(model)
        self.quantised = by_layers(quantised)
        """Weights that this server computes with in FP8, in short."""
        self._served = served | _scales(served, quantised, vllm_config)
        self._expected = {
            name: Published(tensor.sizes, fp8=name in quantised) for name, tensor in self._served.items()
        }

    def init_transfer_engine(self, init_info: NoInit) -> None:
        """Nothing to set up."""

    def start_weight_update(self) -> None:
        """Nothing yet: the model must stay whole until the weights are here."""

    def finish_weight_update(self) -> None:
        """Nothing left: `update_weights` returns with the model whole."""

    def shutdown(self) -> None:
        """Nothing is held between updates."""

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """As upstream, but a CPU has no accelerator to synchronise."""
        self.receive_weights(self.parse_update_info(update_info))
        if self.device.type != "cpu":
            torch.accelerator.synchronize()

    def check_complete(self, published: Mapping[str, Published], *, where: str) -> None:
        """BridgeError unless these are the tensors of the checkpoint that this server started from, quantised
        as this server is.

        vLLM itself is content with half of a fused matrix: it keeps the old weights and says nothing. It
        would also cast to FP8 what comes in another precision, without a scale.
        """
        # A version may hold a tied head or leave it out.
        found = {item for item in published.items() if not (self._tied and item[0] == HF_HEAD)}
        if difference := sorted(found ^ set(self._expected.items())):
            name, tensor = difference[0]
            raise BridgeError(
                f"{where}: {len(difference)} tensors differ from the served checkpoint in name, sizes or "
                f"precision, first {name} {tensor.sizes}{' in FP8' if tensor.fp8 else ''}: publish every "
                "tensor of the model that the server was started with, in the server's own publish.weights"
            )

    def replace_all(self, tensors: Iterable[tuple[str, Tensor]]) -> None:
        """Load HF tensors of whole sizes, of which the boxes that this rank keeps must be filled."""
        with torch.device(self.device), torch.no_grad():
            initialize_layerwise_reload(self.model)
            weights = (
                (self._served[name].stored_as, tensor) for name, tensor in tensors if name in self._served
            )
            self.model.load_weights(weights)  # pyright: ignore[reportCallIssue]  (any vLLM model has it)
            finalize_layerwise_reload(self.model, self.model_config)
            for head in self._tied.values():
                _retie(*head)


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


def _scales(
    served: Mapping[str, Served], quantised: Sequence[str], vllm_config: VllmConfig
) -> dict[str, Served]:
    """The scale tensors that a version brings for the weights in FP8; the checkpoint has none."""
    if not quantised:
        return {}
    scheme = scheme_of(vllm_config)
    suffix = SCALE_SUFFIX[scheme]
    weights = {name: served[name] for name in quantised}
    return {
        name + suffix: Served(weight.stored_as + suffix, scale_sizes(weight.sizes, scheme))
        for name, weight in weights.items()
    }


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
