"""Which numbers of a Hugging Face config.json define the model, and which layouts can hold it?

Dense decoders of the Llama family: Llama itself, SmolLM2 (a Llama with tied embeddings), Mistral
without sliding window, and the Mistral decoder inside a Llava config (Pixtral, Apriel). Everything
that would change the mathematics silently (rope scaling, biases, experts, windows) is refused by name.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from apriel_mcore.config.schema import Parallel, Positive, PositiveFloat
from apriel_mcore.errors import ConfigError, InputError

Family = Literal["llama", "mistral"]

_OMITTED: dict[Family, dict[str, Any]] = {
    "llama": {
        "intermediate_size": 11008,
        "max_position_embeddings": 2048,
        "num_key_value_heads": None,
        "sliding_window": None,
    },
    "mistral": {
        "intermediate_size": 14336,
        "max_position_embeddings": 131072,
        "num_key_value_heads": 8,
        "sliding_window": 4096,
    },
}
"""What a key means when absent: transformers leaves out keys that equal its own class defaults."""


class _HfConfig(msgspec.Struct, frozen=True):
    """The keys of config.json that matter here; defaults as in transformers."""

    intermediate_size: Positive
    max_position_embeddings: Positive
    num_key_value_heads: Positive | None
    sliding_window: int | None
    hidden_size: Positive = 4096
    num_hidden_layers: Positive = 32
    num_attention_heads: Positive = 32
    vocab_size: Positive = 32000
    head_dim: Positive | None = None
    hidden_act: str = "silu"
    rms_norm_eps: PositiveFloat = 1e-6
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    rope_theta: PositiveFloat | None = None
    rope_scaling: dict[str, Any] | None = None
    rope_parameters: dict[str, Any] | None = None
    layer_types: list[str] | None = None
    quantization_config: dict[str, Any] | None = None


class ModelShape(msgspec.Struct, frozen=True, kw_only=True):
    """A dense gated decoder with grouped-query attention and RMSNorm, without biases."""

    family: Family
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

    @classmethod
    def from_hf(cls, config: Mapping[str, Any], *, where: str) -> "ModelShape":
        """The shape described by a parsed config.json; `where` opens the InputError of a refusal."""
        family, decoder = _decoder_of(config, where=where)
        try:
            hf = msgspec.convert({**_OMITTED[family], **decoder}, _HfConfig)
        except msgspec.ValidationError as error:
            raise InputError(f"{where}: {error}") from None
        _refuse_unsupported(hf, where=where)
        shape = cls(
            family=family,
            hidden_size=hf.hidden_size,
            num_layers=hf.num_hidden_layers,
            num_heads=hf.num_attention_heads,
            num_kv_heads=hf.num_key_value_heads or hf.num_attention_heads,
            head_dim=hf.head_dim or hf.hidden_size // hf.num_attention_heads,
            ffn_size=hf.intermediate_size,
            vocab_size=hf.vocab_size,
            tied=hf.tie_word_embeddings,
            rope_theta=_rope_theta(hf, where=where),
            norm_eps=hf.rms_norm_eps,
            max_positions=hf.max_position_embeddings,
        )
        shape._check_groups(where=where)
        return shape

    @property
    def heads_per_group(self) -> int:
        """Query heads that share one key and value head."""
        return self.num_heads // self.num_kv_heads

    @property
    def num_parameters(self) -> int:
        """Weights in all; a tied head is counted once, vocabulary padding not at all."""
        attention = 2 * self.hidden_size * self.head_dim * (self.num_heads + self.num_kv_heads)
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

    def _check_groups(self, *, where: str) -> None:
        if self.num_heads % self.num_kv_heads:
            raise InputError(
                f"{where}: num_attention_heads = {self.num_heads} is not a multiple of "
                f"num_key_value_heads = {self.num_kv_heads}"
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


def _decoder_of(config: Mapping[str, Any], *, where: str) -> tuple[Family, Mapping[str, Any]]:
    """Family and text decoder; a Llava config holds the decoder under `text_config`."""
    model_type = config.get("model_type")
    if model_type == "llava" and isinstance(config.get("text_config"), dict):
        text = dict(config["text_config"])
        if "tie_word_embeddings" in config:
            text["tie_word_embeddings"] = config["tie_word_embeddings"]
        return _decoder_of(text, where=f"{where}: text_config")
    if model_type == "llama":
        return "llama", config
    if model_type == "mistral":
        return "mistral", config
    raise InputError(
        f"{where}: model_type = {model_type!r} is not supported; use a dense llama or mistral decoder"
    )


def _refuse_unsupported(hf: _HfConfig, *, where: str) -> None:
    refusals = {
        f"hidden_act = {hf.hidden_act!r} (only silu)": hf.hidden_act != "silu",
        "attention_bias = true": hf.attention_bias,
        "mlp_bias = true": hf.mlp_bias,
        f"sliding_window = {hf.sliding_window} (only null; absent means 4096 for mistral)": (
            hf.sliding_window is not None
        ),
        f"layer_types = {hf.layer_types} (only full_attention)": bool(
            set(hf.layer_types or ()) - {"full_attention"}
        ),
        "quantization_config (only plain weights)": hf.quantization_config is not None,
    }
    found = [what for what, refused in refusals.items() if refused]
    if found:
        raise InputError(f"{where}: not supported: {'; '.join(found)}")


def _rope_theta(hf: _HfConfig, *, where: str) -> float:
    """Theta, from `rope_theta` or the newer `rope_parameters`; any kind of scaling is refused."""
    for key, rope in (("rope_scaling", hf.rope_scaling), ("rope_parameters", hf.rope_parameters)):
        if rope is None:
            continue
        kind = rope.get("rope_type", rope.get("type", "default"))
        partial = rope.get("partial_rotary_factor", 1.0)
        if kind != "default" or partial != 1.0:
            raise InputError(
                f"{where}: not supported: {key} with rope_type = {kind!r}, partial_rotary_factor = {partial}"
            )
    theta = (hf.rope_parameters or {}).get("rope_theta", hf.rope_theta)
    return 10_000.0 if theta is None else float(theta)


def _divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]


def _list(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))
