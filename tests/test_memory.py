"""Memory of a rank against published sizes and against the estimator in Megatron's wheel."""

from math import prod
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from apriel_mcore import memory
from apriel_mcore.bridge.names import hf_tensors
from apriel_mcore.bridge.scales import scales_for
from apriel_mcore.bridge.shape import ModelShape
from apriel_mcore.config.schema import Cluster, LocalServers, Optimizer, Parallel, Train
from apriel_mcore.config.schema.publish import Weights
from apriel_mcore.memory import kept_per_token, layers_in_flight, parameters_on, server_memory
from tests.shapes import SHAPES

APRIEL = SHAPES["apriel_15b"]
SEQ_LEN = 8192
MANY_ROWS = 1000

# tensor, pipeline, virtual pipeline, context, data; every shape below can be shared out like this.
LAYOUTS = [
    (1, 1, 1, 1, 1),
    (2, 1, 1, 1, 4),
    (4, 1, 1, 2, 1),
    (4, 1, 1, 2, 4),
    (8, 1, 1, 1, 1),
    (8, 1, 1, 1, 16),
    (1, 4, 1, 1, 2),
    (2, 2, 1, 2, 2),
    (4, 2, 1, 1, 1),
    (4, 4, 2, 1, 2),
    (8, 8, 1, 1, 4),
    (8, 4, 4, 2, 1),
    (8, 2, 2, 4, 8),
]
GRID = [
    pytest.param(SHAPES[name], layout, id=f"{name}-{'x'.join(map(str, layout))}")
    for name in ("apriel_15b", "llama3_8b", "llama3_70b")
    for layout in LAYOUTS
]


def train_at(layout: tuple[int, ...], **changes: Any) -> Train:
    tensor, pipeline, virtual, context, data = layout
    fields: dict[str, Any] = {"sequence": tensor > 1, "distributed_optimizer": True} | changes.pop(
        "parallel", {}
    )
    parallel = Parallel(
        tensor=tensor, pipeline=pipeline, virtual_pipeline=virtual, context=context, data=data, **fields
    )
    section: dict[str, Any] = {"seq_len": SEQ_LEN, "device": "cuda"} | changes
    return Train(num_steps=1, groups_per_step=1, optimizer=Optimizer(lr=1e-6), parallel=parallel, **section)


def megatron_arguments(shape: ModelShape, train: Train, **changes: Any) -> SimpleNamespace:
    """What Megatron's estimator reads. It knows neither context ranks, so a row counts as its share of
    them, nor that the optimizer is shared out over them too."""
    parallel = train.parallel
    arguments: dict[str, Any] = {
        "num_layers": shape.num_layers,
        "hidden_size": shape.hidden_size,
        "kv_channels": shape.head_dim,
        "num_attention_heads": shape.num_heads,
        "num_query_groups": shape.num_kv_heads,
        "group_query_attention": True,
        "ffn_hidden_size": shape.ffn_size,
        "swiglu": True,
        "padded_vocab_size": shape.padded_vocab(parallel.tensor),
        "untie_embeddings_and_output_weights": not shape.tied,
        "normalization": "RMSNorm",
        "add_bias_linear": False,
        "multi_latent_attention": False,
        "num_experts": None,
        "moe_shared_expert_intermediate_size": None,
        "moe_latent_size": None,
        "mtp_num_layers": None,
        "expert_tensor_parallel_size": 1,
        "expert_model_parallel_size": 1,
        "world_size": parallel.world_size,
        "tensor_model_parallel_size": parallel.tensor,
        "pipeline_model_parallel_size": parallel.pipeline,
        "virtual_pipeline_model_parallel_size": (
            parallel.virtual_pipeline if parallel.virtual_pipeline > 1 else None
        ),
        "data_parallel_size": parallel.data * parallel.context,
        "use_distributed_optimizer": parallel.distributed_optimizer,
        "seq_length": train.seq_len // parallel.context,
        "micro_batch_size": 1,
    }
    return SimpleNamespace(**(arguments | changes))


def first_stage(shape: ModelShape, train: Train) -> memory.StageMemory:
    return memory.training_memory(shape, train, num_micro_batches=MANY_ROWS, weights_in="as_trained")[0]


@pytest.mark.parametrize("distributed", [True, False])
@pytest.mark.parametrize(("shape", "layout"), GRID)
def test_weights_gradients_and_optimizer_are_megatrons(
    shape: ModelShape, layout: tuple[int, ...], distributed: bool
) -> None:
    from megatron.training.theoretical_memory_usage import compute_weight_and_optimizer_memory

    train = train_at(layout, parallel={"distributed_optimizer": distributed})
    ours = first_stage(shape, train)
    found = ours.weights + ours.gradients + ours.optimizer
    wanted = compute_weight_and_optimizer_memory(megatron_arguments(shape, train))
    assert found == pytest.approx(wanted, rel=0.001)


@pytest.mark.parametrize(("shape", "layout"), GRID)
def test_activations_of_layers_are_megatrons_where_both_model_the_same(
    shape: ModelShape, layout: tuple[int, ...]
) -> None:
    """Megatron's formula is that of arXiv 2205.05198 with selective recomputation of the attention core,
    which is what a flash kernel keeps. It has a feed-forward part without a gate (ours keeps 6f where
    it keeps 4f), as many keys and values as channels, and two dropout masks a layer; these are taken out."""
    from megatron.training.theoretical_memory_usage import compute_activation_memory

    train = train_at(layout)
    parallel = train.parallel
    in_flight = layers_in_flight(shape, parallel, 0, MANY_ROWS)
    row = train.seq_len // parallel.context
    found = in_flight * row * kept_per_token(shape, train, in_fp8=False)

    arguments = megatron_arguments(shape, train, ffn_hidden_size=1.5 * shape.ffn_size)
    with_rest = compute_activation_memory(arguments, num_microbatches=MANY_ROWS)
    no_layers = compute_activation_memory(
        SimpleNamespace(**(vars(arguments) | {"num_layers": 0})), num_microbatches=MANY_ROWS
    )
    hidden, queries = shape.hidden_size, shape.num_heads * shape.head_dim
    keys = shape.num_kv_heads * shape.head_dim
    not_ours = 2 * hidden + (4 * hidden - 4 * queries) + (4 * hidden - 4 * keys)
    wanted = with_rest - no_layers - in_flight * row * not_ours / parallel.tensor
    assert found == pytest.approx(wanted, rel=0.01)


@pytest.mark.parametrize(("shape", "layout"), GRID)
def test_the_first_stage_is_near_the_estimator_as_it_is(shape: ModelShape, layout: tuple[int, ...]) -> None:
    """Without any of those changes; ours counts temporaries too, the estimator the logits of a row."""
    from megatron.training.theoretical_memory_usage import (
        compute_activation_memory,
        compute_weight_and_optimizer_memory,
    )

    train = train_at(layout)
    ours, arguments = first_stage(shape, train), megatron_arguments(shape, train)
    activations = compute_activation_memory(arguments, num_microbatches=MANY_ROWS)
    assert 0.925 < ours.activations / activations < 1.07
    assert 0.999 < ours.total / (activations + compute_weight_and_optimizer_memory(arguments)) < 1.115


@pytest.mark.parametrize("tensor", [1, 2, 4, 8])
def test_activations_without_sequence_parallelism_are_megatrons(tensor: int) -> None:
    """That formula has a feed-forward width of 4h without a gate: 16h kept, which Llama 2 13B nearly has
    with its gate (6f = 16.2h). It counts two dropout masks (2h) and adds 5%."""
    from megatron.training.theoretical_memory_usage import compute_activation_memory_without_sp

    shape = SHAPES["llama2_13b"]
    train = train_at((tensor, 2, 1, 1, 1), parallel={"sequence": False})
    in_flight = layers_in_flight(shape, train.parallel, 0, MANY_ROWS)
    found = in_flight * train.seq_len * kept_per_token(shape, train, in_fp8=False)
    arguments = megatron_arguments(shape, train)
    wanted = compute_activation_memory_without_sp(arguments, num_microbatches=MANY_ROWS) / 1.05
    masks = 2 * in_flight * train.seq_len * shape.hidden_size
    assert found == pytest.approx(wanted - masks, rel=0.05)


@pytest.mark.parametrize(("shape", "layout"), GRID)
def test_ranks_together_hold_the_model_once_and_its_norms_on_each(
    shape: ModelShape, layout: tuple[int, ...]
) -> None:
    parallel = train_at(layout).parallel
    ranks = parallel.tensor * sum(parameters_on(shape, parallel, s) for s in range(parallel.pipeline))
    qk_norms = shape.qk_norm * 2 * shape.head_dim
    norms = (2 * shape.num_layers + 1) * shape.hidden_size + shape.num_layers * qk_norms
    assert ranks == shape.num_parameters + (parallel.tensor - 1) * norms


def test_the_published_parameter_count_and_what_training_it_takes() -> None:
    assert APRIEL.num_parameters == parameters_on(APRIEL, Parallel(), 0) == 14_428_902_400
    plain = first_stage(APRIEL, train_at((1, 1, 1, 1, 1), parallel={"distributed_optimizer": False}))
    assert plain.weights + plain.gradients + plain.optimizer == 18 * 14_428_902_400
    fp32 = first_stage(APRIEL, train_at((1, 1, 1, 1, 1), precision="fp32"))
    assert fp32.weights + fp32.gradients + fp32.optimizer == 16 * 14_428_902_400


def test_a_tied_head_is_a_second_copy_only_on_another_stage() -> None:
    tied = msgspec.structs.replace(APRIEL, tied=True)
    embedding = APRIEL.vocab_size * APRIEL.hidden_size
    assert parameters_on(tied, Parallel(), 0) == 14_428_902_400 - embedding
    two = Parallel(pipeline=2)
    assert parameters_on(tied, two, 1) == parameters_on(APRIEL, two, 1)


@pytest.mark.parametrize(
    ("parallel", "rows", "layers"),
    [
        (Parallel(pipeline=4), 100, [48, 36, 24, 12]),
        (Parallel(pipeline=4), 2, [24, 24, 24, 12]),
        (Parallel(pipeline=4, virtual_pipeline=2), 100, [66, 54, 42, 30]),
        (Parallel(pipeline=4, virtual_pipeline=2), 4, [48, 48, 42, 30]),
        (Parallel(), 100, [48]),
    ],
)
def test_layers_in_flight(parallel: Parallel, rows: int, layers: list[int]) -> None:
    stages = range(parallel.pipeline)
    assert [layers_in_flight(APRIEL, parallel, stage, rows) for stage in stages] == layers


def test_recomputation_keeps_less_and_works_with_more() -> None:
    none, selective, full = (
        first_stage(APRIEL, train_at((4, 2, 1, 1, 1), recompute=kind))
        for kind in ("none", "selective", "full")
    )
    assert none.activations > 2 * selective.activations > 4 * full.activations
    assert none.working < selective.working < full.working
    assert full.activations == 48 * SEQ_LEN * 2 * 5120 // 4  # the input of every layer, shared out


def test_the_head_limits_are_those_of_the_head() -> None:
    from apriel_mcore.mcore import logprobs

    assert (memory.HEAD_CHUNK_BYTES, memory.HEAD_KEEP_BYTES) == (logprobs.CHUNK_BYTES, logprobs.KEEP_BYTES)


def test_a_head_without_tensor_ranks_needs_three_copies_of_itself() -> None:
    working = first_stage(APRIEL, train_at((1, 1, 1, 1, 1))).working
    copies = (4 + 4 + 2) * 131072 * 5120  # float32 weight and gradient, bf16 gradient
    assert copies < working < copies + 400 * 2**20


def server(weights: Weights = "as_trained", **changes: Any) -> memory.ServerMemory:
    settings: dict[str, Any] = {"kv_cache_gib": "auto", "max_model_len": 20000} | changes
    return server_memory(APRIEL, LocalServers(**settings), Cluster(), weights)


def test_kv_cache_beside_the_weights() -> None:
    one = server()
    assert one.weights == 2 * 14_428_902_400
    assert one.bytes_per_token == 196_608  # 3.0 GiB for 16384 tokens
    assert one.tokens == (int(0.9 * 80e9) - one.weights - 4 * 2**30) // 196_608
    assert one.tokens // 16384 == 12
    two, four = server(tensor=2), server(tensor=4)
    assert (two.bytes_per_token, four.bytes_per_token) == (98_304, 49_152)
    assert (two.tokens // 16384, four.tokens // 16384) == (33, 75)


def test_fp8_weights_leave_their_half_to_the_kv_cache() -> None:
    plain, fp8 = server(tensor=2), server("fp8_block", tensor=2)
    projections = sum(prod(hf_tensors(APRIEL)[name]) for name in scales_for(APRIEL, "fp8_block"))
    assert plain.weights - fp8.weights == projections // 2
    assert plain.weights - fp8.weights == fp8.kv_cache - plain.kv_cache
    assert fp8.weights / plain.weights == pytest.approx(0.55, abs=0.01)  # embedding and head stay as they are


def test_more_ranks_than_groups_hold_copies_of_the_keys() -> None:
    assert server(tensor=16).bytes_per_token == server(tensor=8).bytes_per_token == 24_576


def test_a_given_cache_size_is_each_gpus() -> None:
    found = server(kv_cache_gib=3.0, tensor=2)
    assert found.tokens == 2 * 16384
    assert server(gpu_memory_utilization=0.3).tokens == 0
