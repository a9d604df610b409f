"""Llava, which is Pixtral and Apriel-1.5-15b-Thinker: a text decoder beside a vision tower.

Only the decoder is trained: `text_config` describes it, as a family of its own. Tower and projector are
dropped when weights come in (bridge/names.py).
"""

from collections.abc import Mapping
from typing import Any

import msgspec

MODEL_TYPE = "llava"

IMAGES = frozenset(
    {
        "vision_config",
        "vision_feature_layer",
        "vision_feature_select_strategy",
        "multimodal_projector_bias",
        "projector_hidden_act",
        "image_seq_length",
        "image_token_id",
        "image_token_index",
    }
)
"""Keys about images, which text alone does not meet."""


class Llava(msgspec.Struct, frozen=True, kw_only=True):
    """transformers.LlavaConfig, as far as the decoder goes."""

    text_config: dict[str, Any]
    tie_word_embeddings: bool = False

    def decoder(self) -> dict[str, Any]:
        """The decoder's config by itself.

        As transformers' LlavaConfig has it: a Llama where no family is named, and tied if either level says
        so, because the wrapper's default of false is also written for models whose decoder is tied.
        """
        tied = self.tie_word_embeddings or bool(self.text_config.get("tie_word_embeddings"))
        return {"model_type": "llama", **self.text_config, "tie_word_embeddings": tied}


def decoder_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The decoder's part of a parsed config.json that was read as a Llava (registry.py)."""
    return msgspec.convert(config, Llava).decoder()
