"""Llama 2 and 3, and whatever else is published as one, such as SmolLM2 with its tied head."""

from typing import ClassVar

from apriel_mcore.bridge.families.decoder import DecoderConfig
from apriel_mcore.config.schema.fields import Positive


class Llama(DecoderConfig, frozen=True, kw_only=True):
    """transformers.LlamaConfig; nothing beyond the common decoder."""

    model_type: ClassVar[str] = "llama"

    vocab_size: Positive = 32000
    intermediate_size: Positive = 11008
    max_position_embeddings: Positive = 2048
    num_key_value_heads: Positive | None = None
    rope_interleaved: bool = False
    """Written by the program that trained SmolLM2: which halves of a head are rotated together."""

    def refusals(self) -> dict[str, bool]:
        """Pairs of neighbours would be rotated."""
        return super().refusals() | {"rope_interleaved = true": self.rope_interleaved}
