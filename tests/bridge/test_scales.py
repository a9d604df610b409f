"""FP8 as a plan: which weights, which cells, and every byte of a version sent once to whoever keeps it."""

import re
from collections import Counter
from math import prod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apriel_mcore.bench.reshard import SHAPES
from apriel_mcore.bridge.names import hf_tensors
from apriel_mcore.bridge.plan import make_plan
from apriel_mcore.bridge.scales import Scheme, by_layers, check_blocks, scales_for, with_scales
from apriel_mcore.bridge.shape import ModelShape
from apriel_mcore.bridge.stream import Route, make_stream_plan
from apriel_mcore.bridge.tensorfile import ITEMSIZE
from apriel_mcore.config.schema import Parallel
from apriel_mcore.errors import ConfigError
from tests.bridge.conftest import make_shape
from tests.bridge.test_stream import elements, received

SCHEMES: list[Scheme] = ["fp8_block", "fp8_tensor"]
ALIGNED = make_shape(layers=2, groups=4, heads_per_group=2, head_dim=128, hidden=256, ffn=1024)
"""Large enough for a server of four ranks to cut between cells."""


@pytest.mark.parametrize("scheme", SCHEMES)
def test_projections_are_quantised_and_nothing_else(scheme: Scheme) -> None:
    shape = make_shape(layers=2, qkv_bias=True, qk_norm=True)
    projection = re.compile(r"model\.layers\.\d\.(self_attn\.[qkvo]|mlp\.(gate|up|down))_proj\.weight")
    assert scales_for(shape, scheme).keys() == {name for name in hf_tensors(shape) if projection.match(name)}
    assert scales_for(shape, "as_trained") == {}


def test_a_block_has_its_own_scale_and_a_fused_projection_one() -> None:
    blocks = scales_for(ALIGNED, "fp8_block")
    slots = [range(scale.start, scale.stop) for scale in blocks.values()]
    assert sorted(slot for run in slots for slot in run) == list(range(sum(map(len, slots))))
    up = blocks["model.layers.1.mlp.up_proj.weight"]
    assert (up.name, up.sizes) == ("model.layers.1.mlp.up_proj.weight_scale_inv", (8, 2))
    tensors = scales_for(ALIGNED, "fp8_tensor")
    starts = [tensors[f"model.layers.0.self_attn.{part}_proj.weight"].start for part in "qkvo"]
    assert starts == [0, 0, 0, 1]
    assert [tensors[f"model.layers.0.mlp.{part}_proj.weight"].start for part in ("gate", "up", "down")] == [
        2,
        2,
        3,
    ]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("parallel", [Parallel(), Parallel(tensor=2, pipeline=2, virtual_pipeline=2)])
def test_the_plan_holds_each_scale_beside_its_weight_and_exports_it_once(
    scheme: Scheme, parallel: Parallel
) -> None:
    shape = make_shape()
    scales = scales_for(shape, scheme)
    plain = make_plan(shape, parallel, "local")
    plan = with_scales(plain, scales)
    exported = Counter(copy.hf for copy in plan.copies if copy.exported)
    for scale in scales.values():
        assert exported[scale.name] == 1
        holders = {(c.pipeline_rank, c.chunk, c.tensor_rank) for c in plan.copies if c.hf == scale.weight}
        assert holders == {
            (s.pipeline_rank, s.chunk, s.tensor_rank) for s in plan.shards if s.parameter == scale.name
        }
        assert len(holders) == parallel.tensor
    widths = [ITEMSIZE[dtype] for dtype in plan.dtypes("bfloat16").values()]
    assert widths == sorted(widths, reverse=True)  # no tensor begins between two elements
    assert with_scales(plain, {}) == plain


@settings(max_examples=25, deadline=None)
@given(
    scheme=st.sampled_from(SCHEMES),
    tensor=st.sampled_from([1, 2, 4]),
    num_targets=st.sampled_from([1, 2, 4, 8]),
    message_elements=st.integers(1, 200),
)
def test_server_ranks_are_sent_their_cells_once(
    scheme: Scheme, tensor: int, num_targets: int, message_elements: int
) -> None:
    shape = make_shape(layers=1)
    route = Route(
        parallel=Parallel(tensor=tensor),
        spec="local",
        num_targets=num_targets,
        dtype="bfloat16",
        weights=scheme,
        message_elements=message_elements,
    )
    plan = make_stream_plan(shape, route)
    for target, boxes in enumerate(plan.boxes_R):
        wanted = Counter((name, place) for name, box in boxes.items() for place in elements(box))
        assert received(plan, target) == wanted
        assert plan.num_bytes_to(target) == sum(
            prod(stop - start for start, stop in box) * ITEMSIZE[plan.dtypes[name]]
            for name, box in boxes.items()
        )
    for message in plan.messages:
        assert {plan.dtypes[piece.hf] for piece in message.slices} == {message.dtype}


@pytest.mark.parametrize("num_targets", [1, 2, 4])
def test_a_server_rank_keeps_the_scales_of_its_own_rows_and_columns(num_targets: int) -> None:
    route = Route(
        parallel=Parallel(tensor=4),
        spec="local",
        num_targets=num_targets,
        dtype="bfloat16",
        weights="fp8_block",
        message_elements=10**6,
    )
    for target, boxes in enumerate(make_stream_plan(ALIGNED, route).boxes_R):
        for part in ("self_attn.q", "self_attn.k", "self_attn.o", "mlp.up", "mlp.down"):
            name = f"model.layers.0.{part}_proj.weight"
            weight, scale = boxes[name], boxes[name + "_scale_inv"]
            assert weight == tuple((128 * start, 128 * stop) for start, stop in scale), (target, name)


@pytest.mark.parametrize(
    ("shape", "num_targets", "message"),
    [
        (ALIGNED, 1, ""),
        (ALIGNED, 4, ""),
        (ALIGNED, 8, ""),  # two ranks share a key head, which is whole on each
        (ALIGNED, 16, "64 query rows, 64 MLP rows"),
        (SHAPES["135m"], 1, "576 query rows, 192 key rows"),
    ],
)
def test_a_server_that_would_cut_a_block_is_refused_with_a_remedy(
    shape: ModelShape, num_targets: int, message: str
) -> None:
    if not message:
        check_blocks(shape, num_targets)
        return
    with pytest.raises(ConfigError, match=rf"publish.weights.*holds {message}, and.*as_trained"):
        check_blocks(shape, num_targets)


@given(st.sets(st.tuples(st.sampled_from(["mlp.up.weight", "attn.q.weight"]), st.integers(0, 30))))
def test_names_in_short_lose_none(layers: set[tuple[str, int]]) -> None:
    names = {f"model.layers.{number}.{part}" for part, number in layers} | {"model.norm.weight"}
    assert {name for short in by_layers(names) for name in _expand(short)} == names


def _expand(short: str) -> list[str]:
    match = re.fullmatch(r"(.*layers\.)([\d,-]+)(\..*)", short)
    if not match:
        return [short]
    runs = [list(map(int, run.split("-"))) for run in match[2].split(",")]
    return [f"{match[1]}{n}{match[3]}" for run in runs for n in range(run[0], run[-1] + 1)]


def test_all_layers_are_one_entry() -> None:
    names = [f"model.layers.{number}.mlp.up_proj.weight" for number in (0, 1, 2, 3, 5)]
    assert by_layers(names) == ("model.layers.0-3,5.mlp.up_proj.weight",)
