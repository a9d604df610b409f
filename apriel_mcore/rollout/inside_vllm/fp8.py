"""Which weights does a vLLM model compute with in FP8?"""

import torch
from vllm.config import VllmConfig
from vllm.model_executor.layers.linear import LinearBase, UnquantizedLinearMethod
from vllm.model_executor.layers.quantization.fp8 import Fp8Config

from apriel_mcore.bridge.names import plain_name
from apriel_mcore.bridge.scales import BLOCK, Scheme
from apriel_mcore.errors import BridgeError


def quantised_weights(model: torch.nn.Module) -> list[str]:
    """Plain HF names of the weights of every linear layer that is not left unquantised, fused ones apart.

    Asked of the layers themselves: a setting that a layer passed over in silence is found out.
    """
    fused: dict[str, list[str]] = model.packed_modules_mapping  # pyright: ignore[reportAssignmentType]
    names: list[str] = []
    for path, module in model.named_modules():
        if not isinstance(module, LinearBase) or isinstance(module.quant_method, UnquantizedLinearMethod):
            continue
        parent, _, own = path.rpartition(".")
        for part in fused.get(own, [own]):
            if name := plain_name(f"{parent}.{part}.weight"):
                names.append(name)
    return names


def scheme_of(config: VllmConfig) -> Scheme:
    """How the server's settings quantise; BridgeError when it is not one of our ways."""
    settings = config.quant_config
    if isinstance(settings, Fp8Config) and settings.activation_scheme == "dynamic":
        if settings.weight_block_size == [BLOCK, BLOCK]:
            return "fp8_block"
        if settings.weight_block_size is None:
            return "fp8_tensor"
    raise BridgeError(
        f"this server quantises by {config.model_config.quantization} {settings}: start it with the "
        "settings of rollout/server.py for publish.weights (docs/decisions/008-fp8-weights.md)"
    )
