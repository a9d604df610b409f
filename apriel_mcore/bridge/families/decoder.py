"""Which keys of a config.json define a dense decoder, and what is refused in every family?

A family is a subclass (families/*.py) that declares its own keys and the keys whose default differs.
Defaults matter because transformers leaves out of a saved config what equals its class's default; a key
without a default here must stand in the file unless the family gives it one.
"""

from typing import Any, ClassVar

from apriel_mcore.bridge.rope import RopeKeys
from apriel_mcore.config.schema.fields import Positive, PositiveFloat


class DecoderConfig(RopeKeys, frozen=True, kw_only=True):
    """A gated decoder with RMSNorm in front of attention and MLP, by the names that config.json uses."""

    model_type: ClassVar[str]
    """What config.json calls the family."""
    qkv_bias: ClassVar[bool] = False
    """Query, key and value projections add a bias; the output projection does not."""
    qk_norm: ClassVar[bool] = False
    """Each head's query and key pass an RMSNorm before the rotation; all heads share its weight."""

    vocab_size: Positive
    intermediate_size: Positive
    max_position_embeddings: Positive
    num_key_value_heads: Positive | None
    """None: as many as query heads."""
    hidden_size: Positive = 4096
    num_hidden_layers: Positive = 32
    num_attention_heads: Positive = 32
    head_dim: Positive | None = None
    """None: hidden_size / num_attention_heads."""
    rms_norm_eps: PositiveFloat = 1e-6
    tie_word_embeddings: bool = False
    hidden_act: str = "silu"
    attention_bias: bool = False
    mlp_bias: bool = False
    attention_dropout: float | None = 0.0
    layer_types: list[str] | None = None
    quantization_config: dict[str, Any] | None = None

    def refusals(self) -> dict[str, bool]:
        """What this code would compute otherwise than the config says: words for it, and whether it holds."""
        return {
            f"hidden_act = {self.hidden_act!r} (only silu)": self.hidden_act != "silu",
            "attention_bias = true": self.attention_bias,
            "mlp_bias = true": self.mlp_bias,
            f"attention_dropout = {self.attention_dropout} (only 0)": bool(self.attention_dropout),
            f"layer_types = {self.layer_types} (only full_attention)": bool(
                set(self.layer_types or ()) - {"full_attention"}
            ),
            "quantization_config (only plain weights)": self.quantization_config is not None,
        }
