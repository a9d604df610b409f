"""Qwen3: no biases, but every head's query and key pass a norm; the keys are those of Qwen2."""

from typing import ClassVar

from apriel_mcore.bridge.families.qwen2 import Qwen2
from apriel_mcore.config.schema.fields import Positive


class Qwen3(Qwen2, frozen=True, kw_only=True):
    """transformers.Qwen3Config."""

    model_type: ClassVar[str] = "qwen3"
    qkv_bias: ClassVar[bool] = False
    qk_norm: ClassVar[bool] = True

    head_dim: Positive | None = 128
