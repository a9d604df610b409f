"""Which Megatron model is this shape, at this layout and precision?

    ModelShape + Train --build_model--> GPTModel chunks (one a virtual stage) > Float16Module > DDP

On a CPU the layers are Megatron's local ones with our attention and norm; on CUDA they are Transformer
Engine's. Why GPTModel and not HybridModel: docs/decisions/002-gptmodel-or-hybridmodel.md.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import torch
from megatron.core import parallel_state
from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig
from megatron.core.extensions.transformer_engine import HAVE_TE
from megatron.core.models.gpt import GPTModel
from megatron.core.models.gpt.gpt_layer_specs import (
    get_gpt_layer_local_submodules,
    get_gpt_layer_with_transformer_engine_spec,
)
from megatron.core.transformer.module import Float16Module
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules, get_num_layers_to_build
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.transformer_layer import TransformerLayer

from apriel_mcore import kernels
from apriel_mcore.bridge.shape import ModelShape
from apriel_mcore.config.schema import EmulatedFp8, Train, keeps_params
from apriel_mcore.errors import ConfigError
from apriel_mcore.fp8 import is_fp8_layer
from apriel_mcore.mcore import fp8, fp8_emulation
from apriel_mcore.mcore.attention import PackedCausalAttention
from apriel_mcore.mcore.norm import RMSNorm
from apriel_mcore.mcore.rope import inverse_frequencies

_RECOMPUTE: dict[str, dict[str, Any]] = {
    "none": {},
    # Of the other modules that Megatron can recompute, the attention core keeps no scores anyway (its
    # kernel computes them again), and the norms belong to the linear layers behind them.
    "selective": {"recompute_granularity": "selective", "recompute_modules": ["mlp"]},
    "full": {"recompute_granularity": "full", "recompute_method": "uniform", "recompute_num_layers": 1},
}
"""Megatron's settings for `train.recompute`."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """This rank's part of the model."""

    shape: ModelShape
    config: TransformerConfig
    wrapped: list[DistributedDataParallel]
    """What the schedule runs, one a virtual pipeline stage."""
    chunks: list[GPTModel]
    """The same without wrappers, for the bridge."""


def build_model(shape: ModelShape, train: Train) -> Model:
    """The model with random weights, wrapped for training; collective over all ranks."""
    shape.check_layout(train.parallel)
    _require_engine(train)
    config = transformer_config(shape, train)
    fp8.require_support(train.fp8, config)
    virtual = train.parallel.virtual_pipeline
    stages = range(virtual) if virtual > 1 else [None]
    chunks = [_chunk(shape, config, train, stage) for stage in stages]
    wrapped = [_wrap(chunk, config, train, bucketed=number == 0) for number, chunk in enumerate(chunks)]
    return Model(shape=shape, config=config, wrapped=wrapped, chunks=chunks)


def _require_engine(train: Train) -> None:
    """ConfigError where Megatron would go on without Transformer Engine, or take another package for apex."""
    kernels.require(kernels.find(), train)
    if train.device == "cuda" and not HAVE_TE:
        raise ConfigError(
            'train.device = "cuda": Transformer Engine is installed, and `python -c "import '
            'transformer_engine.pytorch"` fails: install the one that was built for this torch and CUDA'
        )


def dtype_of(train: Train) -> torch.dtype:
    """Of weights and activations."""
    return torch.bfloat16 if train.precision == "bf16" else torch.float32


def transformer_config(shape: ModelShape, train: Train) -> TransformerConfig:
    """Megatron's description of the model and of how it is to be run."""
    parallel, on_cuda = train.parallel, train.device == "cuda"
    return TransformerConfig(
        num_layers=shape.num_layers,
        hidden_size=shape.hidden_size,
        ffn_hidden_size=shape.ffn_size,
        num_attention_heads=shape.num_heads,
        num_query_groups=shape.num_kv_heads,
        kv_channels=shape.head_dim,
        layernorm_epsilon=shape.norm_eps,
        normalization="RMSNorm",
        gated_linear_unit=True,
        activation_func=torch.nn.functional.silu,
        add_bias_linear=False,
        add_qkv_bias=shape.qkv_bias,
        qk_layernorm=shape.qk_norm,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        tensor_model_parallel_size=parallel.tensor,
        pipeline_model_parallel_size=parallel.pipeline,
        virtual_pipeline_model_parallel_size=(
            parallel.virtual_pipeline if parallel.virtual_pipeline > 1 else None
        ),
        context_parallel_size=parallel.context,
        sequence_parallel=parallel.sequence,
        params_dtype=dtype_of(train),
        pipeline_dtype=dtype_of(train),
        bf16=train.precision == "bf16",
        # Rows differ in length, so stages tell each other the shape first. That check also asks for a
        # token dispatcher that allows it, even of a model without experts.
        # Not for the interleaved schedule: its rows have one length (mcore/learner.py).
        variable_seq_lengths=parallel.virtual_pipeline == 1,
        moe_token_dispatcher_type="alltoall",
        # Losses come divided by the global constants of the step: gradients are summed over ranks.
        calculate_per_token_loss=True,
        deallocate_pipeline_outputs=parallel.pipeline > 1,
        batch_p2p_comm=on_cuda,
        use_cpu_initialization=not on_cuda,
        gradient_accumulation_fusion=False,
        masked_softmax_fusion=on_cuda,
        bias_activation_fusion=on_cuda,
        bias_dropout_fusion=on_cuda,
        apply_rope_fusion=on_cuda,
        **_RECOMPUTE[train.recompute],
        **fp8.settings(train.fp8),
    )


def _chunk(shape: ModelShape, config: TransformerConfig, train: Train, stage: int | None) -> GPTModel:
    chunk = GPTModel(
        config=config,
        transformer_layer_spec=_layer_spec(config, train, stage),
        vocab_size=shape.padded_vocab(train.parallel.tensor),
        max_sequence_length=shape.max_positions,
        pre_process=parallel_state.is_pipeline_first_stage(ignore_virtual=False, vp_stage=stage),
        post_process=parallel_state.is_pipeline_last_stage(ignore_virtual=False, vp_stage=stage),
        share_embeddings_and_output_weights=shape.tied,
        position_embedding_type="rope",
        vp_stage=stage,
    )
    # Megatron takes neither a fractional theta nor every kind of scaling; its table is made from these.
    chunk.rotary_pos_emb.inv_freq = inverse_frequencies(shape.head_dim, shape.rope_theta, shape.rope_scaling)
    if isinstance(train.fp8, EmulatedFp8):
        for layer in cast(Iterable[TransformerLayer], chunk.decoder.layers):
            if is_fp8_layer(shape, train.fp8, layer.layer_number - 1):
                fp8_emulation.emulate(layer, train.fp8.scaling)
    return chunk


def _layer_spec(config: TransformerConfig, train: Train, stage: int | None) -> Any:
    if train.device == "cuda":
        return get_gpt_layer_with_transformer_engine_spec(qk_layernorm=config.qk_layernorm)
    submodules = get_gpt_layer_local_submodules(normalization="RMSNorm")
    submodules.input_layernorm = RMSNorm
    submodules.pre_mlp_layernorm = RMSNorm
    attention: Any = submodules.self_attention
    attention.submodules.core_attention = PackedCausalAttention
    if config.qk_layernorm:
        attention.submodules.q_layernorm = RMSNorm
        attention.submodules.k_layernorm = RMSNorm
    layer = ModuleSpec(module=TransformerLayer, submodules=submodules)
    num_layers = get_num_layers_to_build(config, vp_stage=stage)
    return TransformerBlockSubmodules(layer_specs=[layer] * num_layers, layer_norm=RMSNorm)


def _wrap(
    chunk: GPTModel, config: TransformerConfig, train: Train, *, bucketed: bool
) -> DistributedDataParallel:
    chunk.to(torch.cuda.current_device())
    module = Float16Module(config, chunk) if config.bf16 else chunk
    return DistributedDataParallel(
        config=config,
        ddp_config=_ddp_config(train),
        module=module,
        # Later virtual stages communicate while earlier ones compute: one bucket is enough.
        disable_bucketing=not bucketed,
    )


def _ddp_config(train: Train) -> DistributedDataParallelConfig:
    parallel = train.parallel
    return DistributedDataParallelConfig(
        grad_reduce_in_fp32=True,
        use_distributed_optimizer=parallel.distributed_optimizer,
        overlap_grad_reduce=parallel.overlap_grad_reduce,
        overlap_param_gather=parallel.overlap_param_gather,
        fp8_param_gather=keeps_params(train.fp8),
    )
