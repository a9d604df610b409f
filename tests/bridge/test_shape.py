"""Refusals by name, the parameter-count oracles, and layouts that cannot hold a model."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from apriel_mcore.bridge.shape import ModelShape, read
from apriel_mcore.config.schema import Parallel
from apriel_mcore.errors import ConfigError, InputError

SMOLLM2: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 576,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "intermediate_size": 1536,
    "vocab_size": 49152,
    "tie_word_embeddings": True,
    "rope_theta": 100000,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 8192,
    "rope_scaling": None,
}
APRIEL: dict[str, Any] = {
    "model_type": "llava",
    "tie_word_embeddings": False,
    "text_config": {
        "model_type": "mistral",
        "head_dim": 128,
        "hidden_size": 5120,
        "intermediate_size": 14336,
        "num_hidden_layers": 48,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1e9,
        "sliding_window": None,
        "max_position_embeddings": 131072,
        "vocab_size": 131072,
    },
}


def shape(**changes: object) -> ModelShape:
    return ModelShape.from_hf(SMOLLM2 | changes, where="config.json")


def test_smollm2_is_a_tied_llama() -> None:
    assert shape().tied
    assert shape().head_dim == 64
    assert shape().num_parameters == 134_515_008


def test_apriel_has_the_published_parameter_count() -> None:
    apriel = ModelShape.from_hf(APRIEL, where="config.json")
    assert (apriel.family, apriel.num_heads, apriel.head_dim) == ("mistral", 32, 128)
    assert apriel.num_parameters == 14_428_902_400


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model_type": "mixtral"}, "model_type = 'mixtral'"),
        ({"model_type": None}, "model_type = None"),
        ({"attention_bias": True}, "attention_bias"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"hidden_act": "gelu"}, "hidden_act = 'gelu'"),
        ({"attention_dropout": 0.1}, "attention_dropout = 0.1"),
        ({"rope_interleaved": True}, "rope_interleaved = true"),
        ({"sliding_window": 4096}, "unknown keys for model_type = 'llama': sliding_window"),
        ({"num_local_experts": 8, "kv_lora_rank": 512}, "'llama': kv_lora_rank, num_local_experts"),
        ({"auto_map": {"AutoModel": "own.Model"}}, "auto_map"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"layer_types": ["sliding_attention"]}, "layer_types"),
        ({"hidden_size": "576"}, "hidden_size"),
        ({"num_key_value_heads": 2}, "num_key_value_heads = 2"),
        ({"vocab_size": 0}, "vocab_size"),
        ({"head_dim": 15}, "head_dim = 15 is odd"),
        ({"hidden_size": 580}, "hidden_size = 580 is not a multiple of num_attention_heads = 9"),
    ],
)
def test_what_would_change_the_mathematics_is_refused_by_name(changes: dict[str, object], named: str) -> None:
    with pytest.raises(InputError, match=r"^config\.json") as refusal:
        shape(**changes)
    assert named in str(refusal.value)


def test_two_refusals_are_named_together() -> None:
    with pytest.raises(InputError, match=r"mlp_bias = true; quantization_config"):
        shape(mlp_bias=True, quantization_config={"bits": 4})


def test_a_key_that_asks_for_nothing_passes() -> None:
    assert shape(sliding_window=None, unsloth_fixed=True, eos_token_id=[2, 3]) == shape()


def test_vocabulary_is_padded_to_a_multiple_of_tensor_ranks_only() -> None:
    assert [shape(vocab_size=250).padded_vocab(tp) for tp in (1, 2, 4)] == [250, 250, 252]


@pytest.mark.parametrize(
    ("parallel", "message"),
    [
        (Parallel(tensor=2), "train.parallel.tensor = 2.*9 attention heads; use one of 1, 3"),
        (Parallel(tensor=9), "train.parallel.tensor = 9.*3 key/value groups"),
        (Parallel(pipeline=4), "train.parallel.pipeline = 4.*30 layers"),
        (Parallel(pipeline=2, virtual_pipeline=4), "virtual_pipeline = 4.*8 chunks"),
    ],
)
def test_a_layout_that_cannot_hold_the_model_names_key_and_remedy(parallel: Parallel, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        shape().check_layout(parallel)


def test_layouts_that_fit_pass() -> None:
    shape().check_layout(Parallel(tensor=3, pipeline=2, virtual_pipeline=5))
    shape(num_attention_heads=12, num_key_value_heads=4).check_layout(Parallel(tensor=4))


def test_read_takes_a_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(msgspec.json.encode(SMOLLM2))
    assert read(tmp_path) == shape()


def test_read_names_the_missing_or_broken_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config\.json"):
        read(tmp_path)
    (tmp_path / "config.json").write_text("[")
    with pytest.raises(InputError, match="not a JSON object"):
        read(tmp_path)
