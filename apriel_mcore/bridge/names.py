"""Which Megatron parameter is which Hugging Face tensor? One table, read both ways.

Names of both Megatron layer specs are listed: `local` (plain torch modules) and `te` (Transformer
Engine, which fuses each norm into the projection behind it). Megatron's names count layers from zero
in every model chunk; HF names count them through the whole model.
"""

from collections.abc import Iterator
from typing import Literal

import msgspec

from apriel_mcore.bridge.layouts import (
    Columns,
    GateUp,
    GroupedQKV,
    GroupedQKVBias,
    Layout,
    Rows,
    Same,
    Sizes,
)
from apriel_mcore.bridge.shape import ModelShape

Spec = Literal["local", "te"]

HF_EMBEDDING = "model.embed_tokens.weight"
HF_HEAD = "lm_head.weight"


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """One model chunk of a pipeline stage, as the model itself reports it."""

    layer_offset: int
    """Global number of its first layer: `decoder.layers[0].layer_number - 1`."""
    num_layers: int
    first: bool
    """Holds the embedding (`pre_process`)."""
    last: bool
    """Holds final norm and output head (`post_process`)."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the table; `{layer}` stands for the chunk's layer number on the left, the model's right."""

    local: str
    te: str
    hf: tuple[str, ...]
    layout: Layout
    place: Literal["first", "layer", "last", "last_if_split"]
    """The chunks that hold it; last_if_split: the last chunk, unless it is also the first."""
    exported: bool = True
    """False for a copy of a parameter that another rank exports."""

    def parameter(self, spec: Spec, *, layer: int) -> str:
        """Megatron's name for it, in the chunk's own layer `layer`."""
        return (self.te if spec == "te" else self.local).format(layer=layer)


def table(shape: ModelShape) -> tuple[Entry, ...]:
    """Every parameter of the model, in the global order of export: embedding, layers, norm, head."""
    vocabulary = Rows(shape.vocab_size, shape.hidden_size)
    embedding = _everywhere("embedding.word_embeddings.weight", HF_EMBEDDING, vocabulary, "first")
    final_norm = _everywhere(
        "decoder.final_layernorm.weight", "model.norm.weight", Same(shape.hidden_size), "last"
    )
    if shape.tied:
        # A last stage of its own keeps a copy of the embedding under the head's name.
        head = Entry(
            local="output_layer.weight",
            te="output_layer.weight",
            hf=embedding.hf,
            layout=vocabulary,
            place="last_if_split",
            exported=False,
        )
    else:
        head = _everywhere("output_layer.weight", HF_HEAD, vocabulary, "last")
    return (embedding, *_layer_entries(shape), final_norm, head)


def _everywhere(
    megatron: str, hf: str, layout: Layout, place: Literal["first", "layer", "last", "last_if_split"]
) -> Entry:
    return Entry(local=megatron, te=megatron, hf=(hf,), layout=layout, place=place)


type _Row = tuple[str, str, tuple[str, ...], Layout]
"""Names within a layer: local, te, hf."""


def _layer_entries(shape: ModelShape) -> tuple[Entry, ...]:
    return tuple(
        Entry(
            local="decoder.layers.{layer}." + local,
            te="decoder.layers.{layer}." + te,
            hf=tuple("model.layers.{layer}." + name for name in hf),
            layout=layout,
            place="layer",
        )
        for local, te, hf, layout in (*_attention_rows(shape), *_mlp_rows(shape))
    )


def _attention_rows(shape: ModelShape) -> list[_Row]:
    hidden, head_dim = shape.hidden_size, shape.head_dim
    groups = (shape.num_kv_heads, shape.heads_per_group, head_dim)
    norm = (
        "input_layernorm.weight",
        "self_attention.linear_qkv.layer_norm_weight",
        ("input_layernorm.weight",),
        Same(hidden),
    )
    qkv = (
        "self_attention.linear_qkv.weight",
        "self_attention.linear_qkv.weight",
        ("self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight"),
        GroupedQKV(*groups, hidden),
    )
    qkv_bias = (
        "self_attention.linear_qkv.bias",
        "self_attention.linear_qkv.bias",
        ("self_attn.q_proj.bias", "self_attn.k_proj.bias", "self_attn.v_proj.bias"),
        GroupedQKVBias(*groups),
    )
    q_norm = (
        "self_attention.q_layernorm.weight",
        "self_attention.q_layernorm.weight",
        ("self_attn.q_norm.weight",),
        Same(head_dim),
    )
    k_norm = (
        "self_attention.k_layernorm.weight",
        "self_attention.k_layernorm.weight",
        ("self_attn.k_norm.weight",),
        Same(head_dim),
    )
    projection = (
        "self_attention.linear_proj.weight",
        "self_attention.linear_proj.weight",
        ("self_attn.o_proj.weight",),
        Columns(hidden, shape.num_heads * head_dim),
    )
    biases = [qkv_bias] if shape.qkv_bias else []
    qk_norms = [q_norm, k_norm] if shape.qk_norm else []
    return [norm, qkv, *biases, *qk_norms, projection]


def _mlp_rows(shape: ModelShape) -> list[_Row]:
    hidden = shape.hidden_size
    return [
        (
            "pre_mlp_layernorm.weight",
            "mlp.linear_fc1.layer_norm_weight",
            ("post_attention_layernorm.weight",),
            Same(hidden),
        ),
        (
            "mlp.linear_fc1.weight",
            "mlp.linear_fc1.weight",
            ("mlp.gate_proj.weight", "mlp.up_proj.weight"),
            GateUp(shape.ffn_size, hidden),
        ),
        (
            "mlp.linear_fc2.weight",
            "mlp.linear_fc2.weight",
            ("mlp.down_proj.weight",),
            Columns(hidden, shape.ffn_size),
        ),
    ]


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """A parameter of one model chunk and the HF tensors it belongs to."""

    name: str
    hf: tuple[str, ...]
    layout: Layout
    exported: bool


def parameters_of(shape: ModelShape, chunk: Chunk, spec: Spec) -> Iterator[Parameter]:
    """The parameters that a chunk must have, no more and no less, in the table's order."""
    entries = table(shape)
    yield from (_bind(entry, spec, 0, 0) for entry in entries if entry.place == "first" and chunk.first)
    layer_entries = [entry for entry in entries if entry.place == "layer"]
    for layer in range(chunk.num_layers):
        for entry in layer_entries:
            yield _bind(entry, spec, layer, chunk.layer_offset + layer)
    for entry in entries:
        if chunk.last and (entry.place == "last" or (entry.place == "last_if_split" and not chunk.first)):
            yield _bind(entry, spec, 0, 0)


def _bind(entry: Entry, spec: Spec, chunk_layer: int, model_layer: int) -> Parameter:
    return Parameter(
        name=entry.parameter(spec, layer=chunk_layer),
        hf=tuple(name.format(layer=model_layer) for name in entry.hf),
        layout=entry.layout,
        exported=entry.exported,
    )


def hf_tensors(shape: ModelShape) -> dict[str, Sizes]:
    """Every HF tensor of the model and its sizes, in the global order of export."""
    whole = Chunk(layer_offset=0, num_layers=shape.num_layers, first=True, last=True)
    return {
        name: sizes
        for parameter in parameters_of(shape, whole, "local")
        for name, sizes in zip(parameter.hf, parameter.layout.hf_sizes, strict=True)
    }


_DECODER_PREFIXES = ("language_model.model.", "model.language_model.")
_OTHER_MODALITIES = ("vision_tower.", "multi_modal_projector.")


def plain_name(stored: str) -> str | None:
    """The plain name of a decoder tensor stored under any known prefix; None for another modality.

    transformers before 4.52 prefixes a Llava's decoder with `language_model.`, newer versions with
    `model.language_model.`; vision tower and projector do not take part in language-model training.
    """
    if stored.removeprefix("model.").startswith(_OTHER_MODALITIES):
        return None
    for prefix in _DECODER_PREFIXES:
        if stored.startswith(prefix):
            return "model." + stored.removeprefix(prefix)
    if stored == "language_model." + HF_HEAD:
        return HF_HEAD
    return stored
