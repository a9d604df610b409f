"""Every server rank is sent exactly the elements that it keeps, each once, whatever the two layouts."""

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import product
from math import prod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apriel_mcore.bridge.layouts import Box
from apriel_mcore.bridge.names import hf_tensors
from apriel_mcore.bridge.shape import ModelShape
from apriel_mcore.bridge.stream import Route, StreamPlan, make_stream_plan
from apriel_mcore.config.schema import Parallel
from apriel_mcore.errors import ConfigError
from tests.bridge.conftest import make_shape

MakeShape = Callable[..., ModelShape]


def route(parallel: Parallel, num_targets: int, message_elements: int = 10**6) -> Route:
    return Route(
        parallel=parallel,
        spec="local",
        num_targets=num_targets,
        dtype="float32",
        weights="as_trained",
        message_elements=message_elements,
    )


def elements(box: Box) -> Iterator[tuple[int, ...]]:
    return product(*(range(start, stop) for start, stop in box))


def received(plan: StreamPlan, target: int) -> Counter[tuple[str, tuple[int, ...]]]:
    return Counter(
        (piece.hf, place)
        for message in plan.messages
        if message.target == target
        for piece in message.slices
        for place in elements(piece.hf_box)
    )


@settings(max_examples=40, deadline=None)
@given(
    tensor=st.sampled_from([1, 2, 4]),
    pipeline=st.sampled_from([1, 2]),
    num_targets=st.sampled_from([1, 2, 4, 8]),
    message_elements=st.integers(1, 200),
    extra=st.sampled_from(["", "tied", "qkv_bias", "qk_norm"]),
)
def test_each_element_of_a_ranks_box_arrives_once_and_no_other(
    tensor: int, pipeline: int, num_targets: int, message_elements: int, extra: str
) -> None:
    shape = make_shape(layers=2, **({extra: True} if extra else {}))
    parallel = Parallel(tensor=tensor, pipeline=pipeline)
    plan = make_stream_plan(shape, route(parallel, num_targets, message_elements))
    widest_row = max(prod(sizes[1:]) for sizes in hf_tensors(shape).values())
    for target, boxes in enumerate(plan.boxes_R):
        wanted = Counter((name, place) for name, box in boxes.items() for place in elements(box))
        assert received(plan, target) == wanted
        assert plan.num_bytes_to(target) == 4 * wanted.total()
        assert plan.sizes_of(target).keys() == hf_tensors(shape).keys()
    for message in plan.messages:
        assert message.num_elements <= max(message_elements, widest_row)
        assert message.source in set(product(range(pipeline), range(tensor)))
        for piece in message.slices:
            assert [b - a for a, b in piece.shard] == [b - a for a, b in piece.hf_box]


def test_boxes_are_those_that_vllm_cuts(small_shape: MakeShape) -> None:
    shape = small_shape(
        groups=2, heads_per_group=4, head_dim=3, hidden=6, ffn=8, vocab=200, qkv_bias=True, qk_norm=True
    )
    boxes = make_stream_plan(shape, route(Parallel(), 4)).boxes_R[3]
    layer = "model.layers.1."
    assert boxes["model.embed_tokens.weight"] == ((192, 200), (0, 6))  # 256 rows with padding, 64 each
    assert boxes[layer + "self_attn.q_proj.weight"] == ((18, 24), (0, 6))
    assert boxes[layer + "self_attn.k_proj.weight"] == ((3, 6), (0, 6))  # two ranks share a head
    assert boxes[layer + "self_attn.q_proj.bias"] == ((18, 24),)
    assert boxes[layer + "self_attn.v_proj.bias"] == ((3, 6),)
    assert boxes[layer + "self_attn.q_norm.weight"] == ((0, 3),)
    assert boxes[layer + "self_attn.o_proj.weight"] == ((0, 6), (18, 24))
    assert boxes[layer + "mlp.up_proj.weight"] == ((6, 8), (0, 6))
    assert boxes[layer + "mlp.down_proj.weight"] == ((0, 6), (6, 8))
    assert boxes[layer + "input_layernorm.weight"] == ((0, 6),)


def test_a_rank_of_padding_alone_is_sent_no_vocabulary(small_shape: MakeShape) -> None:
    plan = make_stream_plan(small_shape(vocab=11), route(Parallel(), 2))
    assert plan.sizes_of(1)["model.embed_tokens.weight"] == (0, 6)


def test_plans_differ_where_anything_differs(small_shape: MakeShape) -> None:
    one = make_stream_plan(small_shape(), route(Parallel(), 2))
    assert one.digest == make_stream_plan(small_shape(), route(Parallel(), 2)).digest
    others = [
        make_stream_plan(small_shape(), route(Parallel(), 4)),
        make_stream_plan(small_shape(), route(Parallel(tensor=2), 2)),
        make_stream_plan(small_shape(), route(Parallel(), 2, message_elements=50)),
        make_stream_plan(small_shape(tied=True), route(Parallel(), 2)),
    ]
    assert len({one.digest, *(other.digest for other in others)}) == 5


def test_a_layout_that_cannot_hold_the_model_is_refused(small_shape: MakeShape) -> None:
    with pytest.raises(ConfigError, match=r"train\.parallel\.tensor = 3"):
        make_stream_plan(small_shape(), route(Parallel(tensor=3), 1))
