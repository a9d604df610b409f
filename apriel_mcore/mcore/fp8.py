"""How does `train.fp8` become Transformer Engine's FP8, and how do FP8 weights look to the rest of us?

Megatron-Core accepts any combination, and trains without FP8 where Transformer Engine is missing: what it
does not check is checked here, once the device is known.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from megatron.core.fp8_utils import (
    copy_tensor_to_quantized_param,
    dequantize_fp8_tensor,
    get_fp8_recipe,
    is_float8tensor,
)
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor, nn

from apriel_mcore.config.schema import (
    BlockwiseFp8,
    DelayedFp8,
    EngineFp8,
    Fp8,
    Mxfp8,
    TensorwiseFp8,
    bf16_layers,
    keeps_params,
)
from apriel_mcore.errors import ConfigError
from apriel_mcore.fp8 import kind_of

_RECIPES = {
    "tensorwise": "Float8CurrentScaling",
    "delayed": "DelayedScaling",
    "blockwise": "Float8BlockScaling",
    "mxfp8": "MXFP8BlockScaling",
}
"""Transformer Engine's classes by `train.fp8.kind`."""


def settings(fp8: Fp8) -> dict[str, Any]:
    """Of Megatron's TransformerConfig; none where Transformer Engine computes no FP8."""
    if not isinstance(fp8, EngineFp8):
        return {}
    first, last = bf16_layers(fp8)
    found: dict[str, Any] = {
        "fp8": "hybrid" if isinstance(fp8, TensorwiseFp8 | DelayedFp8) else "e4m3",
        "fp8_recipe": kind_of(fp8),
        "fp8_param": keeps_params(fp8),
        "first_last_layers_bf16": first + last > 0,
        "num_layers_at_start_in_bf16": first,
        "num_layers_at_end_in_bf16": last,
    }
    if isinstance(fp8, DelayedFp8):
        found["fp8_amax_history_len"] = fp8.amax_history
        found["fp8_amax_compute_algo"] = fp8.amax
        found["fp8_margin"] = fp8.margin
    return found


def require_support(fp8: Fp8, config: TransformerConfig) -> None:
    """ConfigError where this rank would train in another FP8 than asked for, or could not."""
    if not isinstance(fp8, EngineFp8):
        return
    key = f'train.fp8.kind = "{kind_of(fp8)}"'
    recipe = type(get_fp8_recipe(config))
    wanted = _RECIPES[kind_of(fp8)]
    if wanted not in [parent.__name__ for parent in recipe.__mro__]:
        raise ConfigError(
            f"{key}: Megatron-Core chose {recipe.__name__} instead of {wanted}; use another kind"
        )
    available, reason = _availability(fp8)
    if not available:
        raise ConfigError(
            f"{key} cannot run on {torch.cuda.get_device_name()}: {reason}; H100 takes tensorwise, delayed "
            "and blockwise, Blackwell mxfp8"
        )


def _availability(fp8: EngineFp8) -> tuple[bool, str]:
    """Transformer Engine's word on this device, and its reason."""
    from transformer_engine.pytorch import (  # pyright: ignore[reportMissingImports]
        is_fp8_available,
        is_fp8_block_scaling_available,
        is_mxfp8_available,
    )

    if isinstance(fp8, Mxfp8):
        return is_mxfp8_available(return_reason=True)
    if isinstance(fp8, BlockwiseFp8):
        return is_fp8_block_scaling_available(return_reason=True)
    return is_fp8_available(return_reason=True)


class PlainParameters(Mapping[str, Tensor]):
    """The named parameters of a module, FP8 ones as what they stand for.

    Such a one is made when it is asked for and nobody else keeps it: writing to it changes nothing.
    """

    def __init__(self, module: nn.Module) -> None:
        self._parameters = dict(module.named_parameters())

    def __getitem__(self, name: str) -> Tensor:
        parameter = self._parameters[name]
        if not is_float8tensor(parameter):
            return parameter
        with torch.no_grad():
            return dequantize_fp8_tensor(parameter)

    def __iter__(self) -> Iterator[str]:
        return iter(self._parameters)

    def __len__(self) -> int:
        return len(self._parameters)


@torch.no_grad()
def write_back(module: nn.Module, values: Mapping[str, Tensor]) -> None:
    """FP8 parameters of `module` take the values; the others are expected to hold them already."""
    for name, parameter in module.named_parameters():
        if is_float8tensor(parameter):
            copy_tensor_to_quantized_param(parameter, values[name])
