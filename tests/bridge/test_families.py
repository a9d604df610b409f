"""Every family against transformers: defaults of absent keys, parameter counts, tensor names and sizes.

Published configs hold the keys of the model pages that speak of the decoder, and the counts given there.
"""

from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    LlamaConfig,
    LlavaConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from apriel_mcore.bridge.families.decoder import DecoderConfig
from apriel_mcore.bridge.families.registry import FAMILIES
from apriel_mcore.bridge.names import hf_tensors, plain_name
from apriel_mcore.bridge.rope import Llama3
from apriel_mcore.bridge.shape import ModelShape, read
from apriel_mcore.errors import InputError

CONFIGS: dict[str, type[PreTrainedConfig]] = {
    config.model_type: config for config in (LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config)
}
TINY: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "intermediate_size": 40,
    "vocab_size": 51,
    "max_position_embeddings": 64,
}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3 |= {"original_max_position_embeddings": 8192}
PIXTRAL_TOWER = {"model_type": "pixtral", "hidden_size": 32, "num_hidden_layers": 1}
PIXTRAL_TOWER |= {"num_attention_heads": 2, "intermediate_size": 32, "image_size": 32, "patch_size": 16}


def tiny_configs() -> dict[str, PreTrainedConfig]:
    mistral = MistralConfig(**TINY, head_dim=16, sliding_window=None, rope_theta=1e9)
    return {
        "llama": LlamaConfig(**TINY, rope_parameters={"rope_theta": 5e5, **LLAMA3}),
        "smollm2": LlamaConfig(**TINY, tie_word_embeddings=True, rope_theta=1e5),
        "mistral": MistralConfig(**TINY, sliding_window=None),
        "mistral_nemo": mistral,
        "qwen2": Qwen2Config(**TINY),
        "qwen2_tied": Qwen2Config(**TINY, tie_word_embeddings=True),
        "qwen3": Qwen3Config(**TINY, head_dim=16),
        "apriel": LlavaConfig(text_config=mistral.to_dict(), vision_config=dict(PIXTRAL_TOWER)),
        "tied_llava": LlavaConfig(
            text_config=LlamaConfig(**TINY, tie_word_embeddings=True).to_dict(),
            vision_config=dict(PIXTRAL_TOWER),
        ),
    }


def test_every_family_is_compared_with_its_class() -> None:
    assert [family.model_type for family in FAMILIES] == list(CONFIGS)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.model_type)
def test_absent_keys_mean_what_transformers_takes_them_for(family: type[DecoderConfig]) -> None:
    theirs = CONFIGS[family.model_type]
    shared = [field for field in msgspec.structs.fields(family) if hasattr(theirs, field.name)]
    assert len(shared) > 12
    for field in shared:
        if field.name != "rope_scaling":  # there a property, another name of rope_parameters
            assert field.default == getattr(theirs, field.name), field.name


@pytest.mark.parametrize("name", tiny_configs())
def test_parameters_and_names_are_those_of_the_model(name: str) -> None:
    config = tiny_configs()[name]
    shape = ModelShape.from_hf(config.to_dict(), where="config.json")
    kind = AutoModelForImageTextToText if isinstance(config, LlavaConfig) else AutoModelForCausalLM
    with torch.device("meta"):
        model = kind.from_config(config)
    theirs = {plain_name(stored): tuple(weight.shape) for stored, weight in model.named_parameters()}
    theirs.pop(None, None)  # vision tower and projector
    assert hf_tensors(shape) == theirs
    if not isinstance(config, LlavaConfig):
        assert shape.num_parameters == model.num_parameters()


def test_a_saved_config_says_the_same_as_a_full_one(tmp_path: Path) -> None:
    """Keys that equal the class's defaults are left out of the file."""
    for config in tiny_configs().values():
        config.save_pretrained(tmp_path)
        assert read(tmp_path) == ModelShape.from_hf(config.to_dict(), where="config.json")


def published(model_type: str, widths: tuple[int, ...], **more: Any) -> dict[str, Any]:
    """hidden, layers, heads, key/value heads, ffn, vocabulary, positions."""
    keys = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    keys += ("intermediate_size", "vocab_size", "max_position_embeddings")
    return {"model_type": model_type, **dict(zip(keys, widths, strict=True)), **more}


QWEN2_WINDOW = {"use_sliding_window": False, "use_mrope": False}
PUBLISHED = {
    "SmolLM2-135M": (
        published(
            "llama",
            (576, 30, 9, 3, 1536, 49152, 8192),
            tie_word_embeddings=True,
            rope_theta=100000,
            rope_interleaved=False,
            is_llama_config=True,
            rope_scaling=None,
            pad_token_id=None,
        ),
        134_515_008,
    ),
    "Llama-3.2-1B": (
        published(
            "llama",
            (2048, 16, 32, 8, 8192, 128256, 131072),
            head_dim=64,
            tie_word_embeddings=True,
            rope_theta=500000.0,
            rope_scaling=LLAMA3 | {"factor": 32.0},
        ),
        1_235_814_400,
    ),
    "Llama-3.1-8B": (
        published(
            "llama",
            (4096, 32, 32, 8, 14336, 128256, 131072),
            rope_theta=500000.0,
            rope_scaling=LLAMA3,
        ),
        8_030_261_248,
    ),
    "Mistral-7B-v0.3": (
        published("mistral", (4096, 32, 32, 8, 14336, 32768, 32768), sliding_window=None, rope_theta=1e6),
        7_248_023_552,
    ),
    "Mistral-Nemo-Base-2407": (
        published(
            "mistral",
            (5120, 40, 32, 8, 14336, 131072, 131072),
            head_dim=128,
            sliding_window=None,
            rope_theta=1e6,
        ),
        12_247_782_400,
    ),
    "Qwen2.5-0.5B": (
        published(
            "qwen2",
            (896, 24, 14, 2, 4864, 151936, 32768),
            tie_word_embeddings=True,
            sliding_window=32768,
            max_window_layers=24,
            **QWEN2_WINDOW,
        ),
        494_032_768,
    ),
    "Qwen2.5-7B": (
        published(
            "qwen2",
            (3584, 28, 28, 4, 18944, 152064, 131072),
            sliding_window=131072,
            max_window_layers=28,
            **QWEN2_WINDOW,
        ),
        7_615_616_512,
    ),
    "Qwen3-0.6B": (
        published(
            "qwen3",
            (1024, 28, 16, 8, 3072, 151936, 40960),
            head_dim=128,
            tie_word_embeddings=True,
            attention_bias=False,
            sliding_window=None,
            max_window_layers=28,
            use_sliding_window=False,
        ),
        596_049_920,
    ),
    "Apriel-1.5-15b-Thinker": (
        {
            "model_type": "llava",
            "architectures": ["LlavaForConditionalGeneration"],
            "image_token_index": 10,
            "multimodal_projector_bias": True,
            "projector_hidden_act": "gelu",
            "vision_feature_layer": -1,
            "vision_feature_select_strategy": "full",
            "vision_config": {"model_type": "pixtral"},
            "text_config": {
                "model_type": "mistral",
                "head_dim": 128,
                "hidden_size": 5120,
                "is_composition": True,
                "num_hidden_layers": 48,
                "rms_norm_eps": 1e-5,
                "rope_theta": 1e9,
                "sliding_window": None,
                "vocab_size": 131072,
            },
        },
        14_428_902_400,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_have_their_parameter_counts(name: str) -> None:
    config, count = PUBLISHED[name]
    assert ModelShape.from_hf(config, where="config.json").num_parameters == count


def test_what_the_families_differ_in() -> None:
    shapes = {name: ModelShape.from_hf(config, where="") for name, (config, _) in PUBLISHED.items()}
    apriel, nemo = shapes["Apriel-1.5-15b-Thinker"], shapes["Mistral-Nemo-Base-2407"]
    assert (apriel.family, apriel.num_heads, apriel.head_dim, apriel.rope_theta) == ("mistral", 32, 128, 1e9)
    assert nemo.num_heads * nemo.head_dim == 4096 != nemo.hidden_size
    assert [name for name, shape in shapes.items() if shape.qkv_bias] == ["Qwen2.5-0.5B", "Qwen2.5-7B"]
    assert [name for name, shape in shapes.items() if shape.qk_norm] == ["Qwen3-0.6B"]
    assert [name for name, shape in shapes.items() if isinstance(shape.rope_scaling, Llama3)] == [
        "Llama-3.2-1B",
        "Llama-3.1-8B",
    ]


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"model_type": "mistral"}, r"sliding_window = 4096 \(only null; absent means 4096\)"),
        (
            {"model_type": "qwen2", "use_sliding_window": True},
            "use_sliding_window = true from layer 28 of 32",
        ),
        ({"model_type": "qwen3", "use_sliding_window": True, "max_window_layers": 0}, "from layer 0 of 32"),
        ({"model_type": "qwen2", "layer_types": ["sliding_attention"]}, "layer_types"),
        ({"model_type": "qwen2", "use_mrope": True}, "use_mrope = true"),
        ({"model_type": "qwen3", "attention_bias": True}, "attention_bias = true"),
        ({"model_type": "qwen3", "num_experts": 128}, "'qwen3': num_experts"),
        ({"model_type": "qwen3_moe"}, "model_type = 'qwen3_moe'"),
        ({"model_type": "deepseek_v3"}, "model_type = 'deepseek_v3'"),
        ({"model_type": "llava"}, "text_config"),
        (
            {"model_type": "llava", "text_config": {"model_type": "gemma"}},
            "text_config: model_type = 'gemma'",
        ),
        (
            {"model_type": "llava", "text_config": {"model_type": "mistral"}},
            "text_config: not supported: slid",
        ),
        ({"model_type": "llava", "text_config": {}, "fusion": "early"}, "'llava': fusion"),
    ],
)
def test_each_family_refuses_by_name(config: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=rf"^config\.json: .*{named}"):
        ModelShape.from_hf(config, where="config.json")


def test_a_window_that_no_layer_has_is_none() -> None:
    config = {"model_type": "qwen2", "use_sliding_window": True, "max_window_layers": 32}
    assert ModelShape.from_hf(config, where="").family == "qwen2"


def test_a_llava_without_a_named_decoder_holds_a_llama() -> None:
    assert ModelShape.from_hf({"model_type": "llava", "text_config": {}}, where="").family == "llama"
