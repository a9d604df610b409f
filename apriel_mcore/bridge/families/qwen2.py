"""Qwen2 and Qwen2.5: a Llama with biases in query, key and value; its window is usually switched off."""

from typing import ClassVar

from apriel_mcore.bridge.families.decoder import DecoderConfig
from apriel_mcore.config.schema.fields import Natural, Positive


class Qwen2(DecoderConfig, frozen=True, kw_only=True):
    """transformers.Qwen2Config."""

    model_type: ClassVar[str] = "qwen2"
    qkv_bias: ClassVar[bool] = True

    vocab_size: Positive = 151936
    intermediate_size: Positive = 22016
    max_position_embeddings: Positive = 32768
    num_key_value_heads: Positive | None = 32
    use_sliding_window: bool = False
    sliding_window: Positive | None = 4096
    """Means nothing while use_sliding_window is false."""
    max_window_layers: Natural = 28
    """Layers from this one on have the window."""
    use_mrope: bool = False

    def refusals(self) -> dict[str, bool]:
        """A window would hide older tokens; positions of three dimensions belong to images."""
        windowed = self.use_sliding_window and self.sliding_window is not None
        window = f"use_sliding_window = true from layer {self.max_window_layers} of {self.num_hidden_layers}"
        return super().refusals() | {
            window: windowed and self.max_window_layers < self.num_hidden_layers,
            "use_mrope = true": self.use_mrope,
        }
