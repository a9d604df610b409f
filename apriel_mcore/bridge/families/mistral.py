"""Mistral 7B from v0.2 on and Mistral Nemo: a Llama whose heads may be wider than hidden / heads."""

from typing import ClassVar

from apriel_mcore.bridge.families.decoder import DecoderConfig
from apriel_mcore.config.schema.fields import Positive


class Mistral(DecoderConfig, frozen=True, kw_only=True):
    """transformers.MistralConfig without its sliding window, which v0.1 has."""

    model_type: ClassVar[str] = "mistral"

    vocab_size: Positive = 32000
    intermediate_size: Positive = 14336
    max_position_embeddings: Positive = 131072
    num_key_value_heads: Positive | None = 8
    sliding_window: Positive | None = 4096

    def refusals(self) -> dict[str, bool]:
        """A window would hide older tokens."""
        window = f"sliding_window = {self.sliding_window} (only null; absent means 4096)"
        return super().refusals() | {window: self.sliding_window is not None}
