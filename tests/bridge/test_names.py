"""The table of names: both specs, tied and untied heads, chunks, and the names files use."""

from collections.abc import Callable

import pytest

from apriel_mcore.bridge.names import Chunk, hf_tensors, parameters_of, plain_name
from apriel_mcore.bridge.shape import ModelShape

MakeShape = Callable[..., ModelShape]
FIRST = Chunk(layer_offset=0, num_layers=1, first=True, last=False)
LAST = Chunk(layer_offset=3, num_layers=1, first=False, last=True)
WHOLE = Chunk(layer_offset=0, num_layers=4, first=True, last=True)


def test_a_layer_has_six_parameters_and_nine_hf_tensors(small_shape: MakeShape) -> None:
    tensors = hf_tensors(small_shape())
    assert [name for name in tensors if ".2." in name] == [
        "model.layers.2.input_layernorm.weight",
        "model.layers.2.self_attn.q_proj.weight",
        "model.layers.2.self_attn.k_proj.weight",
        "model.layers.2.self_attn.v_proj.weight",
        "model.layers.2.self_attn.o_proj.weight",
        "model.layers.2.post_attention_layernorm.weight",
        "model.layers.2.mlp.gate_proj.weight",
        "model.layers.2.mlp.up_proj.weight",
        "model.layers.2.mlp.down_proj.weight",
    ]
    assert tensors["model.layers.2.self_attn.q_proj.weight"] == (16, 6)
    assert tensors["model.layers.2.self_attn.k_proj.weight"] == (8, 6)
    assert tensors["model.layers.2.self_attn.o_proj.weight"] == (6, 16)
    assert tensors["model.layers.2.mlp.down_proj.weight"] == (6, 8)


def test_biases_and_head_norms_stand_behind_the_weights_they_belong_to(small_shape: MakeShape) -> None:
    tensors = hf_tensors(small_shape(qkv_bias=True, qk_norm=True))
    attention = [name for name in tensors if name.startswith("model.layers.2.self_attn.")]
    assert [name.removeprefix("model.layers.2.self_attn.") for name in attention] == [
        "q_proj.weight",
        "k_proj.weight",
        "v_proj.weight",
        "q_proj.bias",
        "k_proj.bias",
        "v_proj.bias",
        "q_norm.weight",
        "k_norm.weight",
        "o_proj.weight",
    ]
    sizes = [tensors[name] for name in attention if "proj.bias" in name or "norm" in name]
    assert sizes == [(16,), (8,), (8,), (2,), (2,)]


@pytest.mark.parametrize("extra", [{}, {"qkv_bias": True}, {"qk_norm": True}])
def test_tensors_hold_all_parameters_of_the_shape(small_shape: MakeShape, extra: dict[str, bool]) -> None:
    for tied in (True, False):
        shape = small_shape(tied=tied, **extra)
        elements = sum(sizes[0] * (sizes[1] if len(sizes) > 1 else 1) for sizes in hf_tensors(shape).values())
        assert elements == shape.num_parameters
        assert ("lm_head.weight" in hf_tensors(shape)) is not tied


def test_megatron_counts_layers_in_the_chunk_and_hf_in_the_model(small_shape: MakeShape) -> None:
    last = {parameter.name: parameter.hf for parameter in parameters_of(small_shape(), LAST, "local")}
    assert last["decoder.layers.0.mlp.linear_fc2.weight"] == ("model.layers.3.mlp.down_proj.weight",)
    assert last["decoder.final_layernorm.weight"] == ("model.norm.weight",)
    assert "embedding.word_embeddings.weight" not in last


def test_the_specs_differ_in_the_two_norms_only(small_shape: MakeShape) -> None:
    names = {
        spec: [parameter.name for parameter in parameters_of(small_shape(), FIRST, spec)]
        for spec in ("local", "te")
    }
    assert set(names["local"]) ^ set(names["te"]) == {
        "decoder.layers.0.input_layernorm.weight",
        "decoder.layers.0.pre_mlp_layernorm.weight",
        "decoder.layers.0.self_attention.linear_qkv.layer_norm_weight",
        "decoder.layers.0.mlp.linear_fc1.layer_norm_weight",
    }


def test_a_tied_head_is_a_copy_on_a_last_stage_of_its_own(small_shape: MakeShape) -> None:
    head = {p.name: p for p in parameters_of(small_shape(tied=True), LAST, "local")}["output_layer.weight"]
    assert head.hf == ("model.embed_tokens.weight",)
    assert not head.exported
    whole = {p.name for p in parameters_of(small_shape(tied=True), WHOLE, "local")}
    assert "output_layer.weight" not in whole


def test_an_untied_head_is_exported(small_shape: MakeShape) -> None:
    for chunk in (LAST, WHOLE):
        head = {p.name: p for p in parameters_of(small_shape(), chunk, "te")}["output_layer.weight"]
        assert head.hf == ("lm_head.weight",)
        assert head.exported


@pytest.mark.parametrize(
    ("stored", "plain"),
    [
        ("model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight"),
        ("lm_head.weight", "lm_head.weight"),
        ("language_model.model.norm.weight", "model.norm.weight"),
        ("language_model.lm_head.weight", "lm_head.weight"),
        ("model.language_model.norm.weight", "model.norm.weight"),
        ("vision_tower.patch_conv.weight", None),
        ("model.vision_tower.patch_conv.weight", None),
        ("multi_modal_projector.linear_1.bias", None),
        ("model.multi_modal_projector.linear_1.weight", None),
        ("model.layers.0.self_attn.q_proj.bias", "model.layers.0.self_attn.q_proj.bias"),
    ],
)
def test_stored_names_lose_their_prefix(stored: str, plain: str | None) -> None:
    assert plain_name(stored) == plain
