"""The plan covers every element of every HF tensor exactly once, for any layout; and knows its ranks."""

from collections import Counter
from collections.abc import Callable

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apriel_mcore.bridge.names import Spec, parameters_of
from apriel_mcore.bridge.plan import Coordinates, Copy, Plan, make_plan, split_layers
from apriel_mcore.bridge.shape import ModelShape
from apriel_mcore.config.schema import Parallel
from apriel_mcore.errors import BridgeError, ConfigError

MakeShape = Callable[..., ModelShape]


def coordinates(plan: Plan, tensor: int, stage: int, *, data: int = 0, context: int = 0) -> Coordinates:
    return Coordinates(
        tensor_rank=tensor,
        pipeline_rank=stage,
        data_rank=data,
        context_rank=context,
        chunks=plan.chunks[stage],
    )


def times_written(plan: Plan, copies: list[Copy]) -> dict[str, np.ndarray]:
    counts = {name: np.zeros(sizes, dtype=int) for name, sizes in plan.tensors.items()}
    for copy in copies:
        counts[copy.hf][tuple(slice(*span) for span in copy.hf_box)] += 1
    return counts


@st.composite
def cases(draw: st.DrawFn) -> tuple[ModelShape, Parallel]:
    tensor = draw(st.sampled_from([1, 2, 3, 4]))
    pipeline = draw(st.integers(1, 4))
    virtual = draw(st.integers(1, 3)) if pipeline > 1 else 1
    groups = tensor * draw(st.integers(1, 2))
    shape = ModelShape(
        family="llama",
        hidden_size=draw(st.integers(1, 5)),
        num_layers=pipeline * virtual * draw(st.integers(1, 2)),
        num_heads=groups * draw(st.integers(1, 3)),
        num_kv_heads=groups,
        head_dim=draw(st.integers(1, 3)),
        ffn_size=tensor * draw(st.integers(1, 3)),
        vocab_size=draw(st.integers(1, 13)),
        tied=draw(st.booleans()),
        rope_theta=1e4,
        norm_eps=1e-5,
        max_positions=8,
        qkv_bias=draw(st.booleans()),
        qk_norm=draw(st.booleans()),
    )
    return shape, Parallel(
        tensor=tensor, pipeline=pipeline, virtual_pipeline=virtual, context=draw(st.integers(1, 2)), data=2
    )


@settings(max_examples=60, deadline=None)
@given(case=cases(), spec=st.sampled_from(["local", "te"]))
def test_all_ranks_together_write_every_element_exactly_once(
    case: tuple[ModelShape, Parallel], spec: Spec
) -> None:
    shape, parallel = case
    plan = make_plan(shape, parallel, spec)
    copies = [
        copy
        for data in range(parallel.data)
        for context in range(parallel.context)
        for stage in range(parallel.pipeline)
        for tensor in range(parallel.tensor)
        for copy in plan.exports_of(coordinates(plan, tensor, stage, data=data, context=context))
    ]
    for name, count in times_written(plan, copies).items():
        assert (count == 1).all(), name


@settings(max_examples=40, deadline=None)
@given(case=cases())
def test_boxes_have_equal_sizes_and_every_shard_is_covered_but_for_padding(
    case: tuple[ModelShape, Parallel],
) -> None:
    shape, parallel = case
    plan = make_plan(shape, parallel, "local")
    for stage in range(parallel.pipeline):
        for tensor in range(parallel.tensor):
            rank = coordinates(plan, tensor, stage)
            counts = {(s.chunk, s.parameter): np.zeros(s.sizes, dtype=int) for s in plan.shards_of(rank)}
            for copy in plan.copies_of(rank):
                assert [b - a for a, b in copy.shard] == [b - a for a, b in copy.hf_box]
                counts[copy.chunk, copy.parameter][tuple(slice(*span) for span in copy.shard)] += 1
            for (_, name), count in counts.items():
                padded = name in ("embedding.word_embeddings.weight", "output_layer.weight")
                assert count.max(initial=0) <= 1
                assert padded or count.all(), name


@given(case=cases())
@settings(max_examples=30, deadline=None)
def test_chunks_hold_every_layer_once_and_end_to_end(case: tuple[ModelShape, Parallel]) -> None:
    shape, parallel = case
    chunks = [chunk for stage in range(parallel.pipeline) for chunk in split_layers(shape, parallel, stage)]
    layers = Counter(
        layer
        for chunk in chunks
        for layer in range(chunk.layer_offset, chunk.layer_offset + chunk.num_layers)
    )
    assert layers == Counter(range(shape.num_layers))
    assert [chunk.layer_offset for chunk in chunks if chunk.first] == [0]
    assert [chunk.layer_offset + chunk.num_layers for chunk in chunks if chunk.last] == [shape.num_layers]


def test_interleaved_stages_take_turns(small_shape: MakeShape) -> None:
    parallel = Parallel(pipeline=2, virtual_pipeline=2)
    offsets = [
        [c.layer_offset for c in split_layers(small_shape(layers=8), parallel, stage)] for stage in (0, 1)
    ]
    assert offsets == [[0, 4], [2, 6]]


def test_replicated_parameters_are_written_by_tensor_rank_0_and_loaded_by_all(small_shape: MakeShape) -> None:
    plan = make_plan(small_shape(), Parallel(tensor=2), "local")
    norms = [copy for copy in plan.copies if copy.hf == "model.norm.weight"]
    assert [(copy.tensor_rank, copy.exported) for copy in norms] == [(0, True), (1, False)]


def test_the_tied_copy_of_the_last_stage_is_loaded_but_not_written(small_shape: MakeShape) -> None:
    plan = make_plan(small_shape(tied=True), Parallel(pipeline=2), "local")
    last = coordinates(plan, 0, 1)
    assert "output_layer.weight" in {copy.parameter for copy in plan.copies_of(last)}
    assert "output_layer.weight" not in {copy.parameter for copy in plan.exports_of(last)}


@pytest.mark.parametrize(("data", "context"), [(1, 0), (0, 1)])
def test_twins_of_the_first_data_and_context_rank_write_nothing(
    small_shape: MakeShape, data: int, context: int
) -> None:
    plan = make_plan(small_shape(), Parallel(data=2, context=2), "local")
    rank = coordinates(plan, 0, 0, data=data, context=context)
    assert plan.exports_of(rank) == []
    assert len(plan.copies_of(rank)) == len(plan.copies)


def test_digest_is_stable_and_tells_layouts_apart(small_shape: MakeShape) -> None:
    layouts = [Parallel(), Parallel(tensor=2), Parallel(pipeline=2), Parallel(pipeline=2, virtual_pipeline=2)]
    digests = [make_plan(small_shape(), parallel, "local").digest for parallel in layouts]
    assert len(set(digests)) == len(layouts)
    assert make_plan(small_shape(), Parallel(), "local").digest == digests[0]
    assert make_plan(small_shape(), Parallel(), "te").digest != digests[0]


def test_digest_notices_two_copies_that_changed_places(small_shape: MakeShape) -> None:
    plan = make_plan(small_shape(), Parallel(), "local")
    swapped = msgspec.structs.replace(plan, copies=(plan.copies[1], plan.copies[0], *plan.copies[2:]))
    assert swapped.digest != plan.digest


def test_a_rank_with_other_layers_than_planned_is_refused(small_shape: MakeShape) -> None:
    plan = make_plan(small_shape(), Parallel(pipeline=2), "local")
    wrong = msgspec.structs.replace(coordinates(plan, 0, 0), chunks=plan.chunks[1])
    with pytest.raises(
        BridgeError, match=r"layers 2\.\.3 with head, the plan expects layers 0\.\.1 with emb"
    ):
        plan.copies_of(wrong)


def test_a_layout_that_does_not_fit_is_a_config_error(small_shape: MakeShape) -> None:
    with pytest.raises(ConfigError, match=r"train\.parallel\.tensor = 3"):
        make_plan(small_shape(), Parallel(tensor=3), "local")


def test_every_planned_shard_is_a_parameter_of_its_chunk(small_shape: MakeShape) -> None:
    plan = make_plan(small_shape(), Parallel(tensor=2, pipeline=2), "te")
    for stage in (0, 1):
        names = [p.name for p in parameters_of(small_shape(), plan.chunks[stage][0], "te")]
        assert [shard.parameter for shard in plan.shards_of(coordinates(plan, 1, stage))] == names
