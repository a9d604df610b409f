"""Which numbers define a model, and which layouts can hold it?

    config.json --bridge/families--> the family's keys --> ModelShape

What the families share is here: dense gated decoders with grouped-query attention, RMSNorm and rotary
embeddings. How each says so in a Hugging Face config.json, and what of it is refused, is in families/.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from apriel_mcore.bridge.families.registry import read_decoder
from apriel_mcore.bridge.rope import RopeScaling, Unscaled
from apriel_mcore.config.schema import Parallel
from apriel_mcore.errors import ConfigError, InputError


class ModelShape(msgspec.Struct, frozen=True, kw_only=True):
    """A dense gated decoder with grouped-query attention and RMSNorm."""

    family: str
    """`model_type` of the decoder's config."""
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    """Of its own: num_heads * head_dim may differ from hidden_size."""
    ffn_size: int
    vocab_size: int
    tied: bool
    """Output head and input embedding are one tensor."""
    rope_theta: float
    norm_eps: float
    max_positions: int
    rope_scaling: RopeScaling = Unscaled()
    qkv_bias: bool = False
    """Query, key and value projections add a bias."""
    qk_norm: bool = False
    """Each head's query and key pass an RMSNorm of head_dim before the rotation."""

    @classmethod
    def from_hf(cls, config: Mapping[str, Any], *, where: str) -> "ModelShape":
        """The shape described by a parsed config.json; `where` opens the InputError of a refusal."""
        hf, where = read_decoder(config, where=where)
        theta, scaling = hf.rope(where=where)
        if hf.head_dim is None and hf.hidden_size % hf.num_attention_heads:
            raise InputError(
                f"{where}: hidden_size = {hf.hidden_size} is not a multiple of num_attention_heads = "
                f"{hf.num_attention_heads}, and there is no head_dim"
            )
        shape = cls(
            family=hf.model_type,
            hidden_size=hf.hidden_size,
            num_layers=hf.num_hidden_layers,
            num_heads=hf.num_attention_heads,
            num_kv_heads=hf.num_key_value_heads or hf.num_attention_heads,
            head_dim=hf.head_dim or hf.hidden_size // hf.num_attention_heads,
            ffn_size=hf.intermediate_size,
            vocab_size=hf.vocab_size,
            tied=hf.tie_word_embeddings,
            rope_theta=theta,
            norm_eps=hf.rms_norm_eps,
            max_positions=hf.max_position_embeddings,
            rope_scaling=scaling,
            qkv_bias=hf.qkv_bias,
            qk_norm=hf.qk_norm,
        )
        shape._check_heads(where=where)
        return shape

    @property
    def heads_per_group(self) -> int:
        """Query heads that share one key and value head."""
        return self.num_heads // self.num_kv_heads

    @property
    def num_parameters(self) -> int:
        """Weights in all; a tied head is counted once, vocabulary padding not at all."""
        attention = 2 * self.hidden_size * self.head_dim * (self.num_heads + self.num_kv_heads)
        attention += self.qkv_bias * self.head_dim * (self.num_heads + 2 * self.num_kv_heads)
        attention += self.qk_norm * 2 * self.head_dim
        layer = attention + 3 * self.hidden_size * self.ffn_size + 2 * self.hidden_size
        embeddings = (1 if self.tied else 2) * self.vocab_size * self.hidden_size
        return self.num_layers * layer + embeddings + self.hidden_size

    def padded_vocab(self, tp: int) -> int:
        """Rows of the embedding over all `tp` ranks: the next multiple of `tp` and no more.

        Pad columns take part in the softmax unless masked, so padding further only costs accuracy.
        """
        return -(-self.vocab_size // tp) * tp

    def check_layout(self, parallel: Parallel) -> None:
        """ConfigError with key path and remedy when the ranks of `parallel` cannot hold this model."""
        tensor_sizes = {
            "attention heads": self.num_heads,
            "key/value groups": self.num_kv_heads,
            "feed-forward channels": self.ffn_size,
        }
        for what, size in tensor_sizes.items():
            if size % parallel.tensor:
                raise ConfigError(
                    f"train.parallel.tensor = {parallel.tensor}: does not divide the model's {size} {what}; "
                    f"use one of {_list(self._tensor_choices())}"
                )
        chunks = parallel.pipeline * parallel.virtual_pipeline
        if self.num_layers % chunks:
            raise ConfigError(
                f"train.parallel.pipeline = {parallel.pipeline} x virtual_pipeline = "
                f"{parallel.virtual_pipeline}: {chunks} chunks do not divide the model's "
                f"{self.num_layers} layers; make the product one of {_list(_divisors(self.num_layers))}"
            )

    def _tensor_choices(self) -> list[int]:
        groups = _divisors(self.num_kv_heads)
        return [tp for tp in groups if not self.num_heads % tp and not self.ffn_size % tp]

    def _check_heads(self, *, where: str) -> None:
        if self.num_heads % self.num_kv_heads:
            raise InputError(
                f"{where}: num_attention_heads = {self.num_heads} is not a multiple of "
                f"num_key_value_heads = {self.num_kv_heads}"
            )
        if self.head_dim % 2:
            raise InputError(
                f"{where}: head_dim = {self.head_dim} is odd, and rotary embeddings turn pairs of numbers"
            )


def read(folder: Path) -> ModelShape:
    """The shape of a Hugging Face folder, from its config.json; InputError if there is none to use."""
    path = folder / "config.json"
    try:
        config = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give a Hugging Face folder") from None
    except msgspec.DecodeError as error:
        raise InputError(f"{path}: not a JSON object: {error}") from None
    return ModelShape.from_hf(config, where=str(path))


def _divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]


def _list(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))
