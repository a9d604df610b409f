"""Cuts cover what is stored, once, and lie where Megatron itself puts them."""

from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from apriel_mcore.bench.ranks import run_ranks
from apriel_mcore.bridge.layouts import Columns, GateUp, GroupedQKV, Layout, Rows, Same
from apriel_mcore.config.schema import Parallel
from apriel_mcore.convert.parameters import Cut, Parameter
from apriel_mcore.convert.scratch import slices
from tests.convert.conftest import Convert
from tests.mcore.llama import SHAPE, hf_model, train_section


def parameter_of(layout: Layout) -> Parameter:
    return Parameter(
        key="decoder.layers.x.weight",
        layer=2,
        num_layers=3,
        hf=tuple(f"part{i}" for i in range(len(layout.hf_sizes))),
        layout=layout,
    )


@st.composite
def layouts(draw: st.DrawFn) -> tuple[Layout, int]:
    ranks = draw(st.sampled_from([1, 2, 3, 4]))
    size = st.integers(1, 4)
    columns = draw(size)
    kinds: list[Layout] = [
        Same(draw(size)),
        Rows(draw(st.integers(1, 13)), columns),
        Columns(draw(size), ranks * draw(size)),
        GroupedQKV(ranks * draw(size), draw(size), draw(size), columns),
        GateUp(ranks * draw(size), columns),
    ]
    return draw(st.sampled_from(kinds)), ranks


@settings(deadline=None)
@given(layouts())
def test_cuts_are_the_whole_cut_up(drawn: tuple[Layout, int]) -> None:
    layout, ranks = drawn
    parameter = parameter_of(layout)
    hf = {
        name: torch.arange(prod(sizes)).view(sizes) + 1000 * (i + 1)
        for i, (name, sizes) in enumerate(parameter.hf_sizes.items())
    }
    sizes = parameter.stored_sizes(ranks)[1:]
    stored = torch.full(sizes, -1)
    for cut in parameter.cuts(ranks):
        target = stored[box_of(cut)]
        assert bool((target == -1).all()), "two cuts overlap"
        target.zero_()
        for fill in cut.fills:
            target[slices(fill.inside)] = hf[fill.hf][slices(fill.hf_box)]
    whole = torch.zeros(parameter.whole.sizes, dtype=torch.int64)
    for fill in parameter.whole.fills:
        whole[slices(fill.inside)] = hf[fill.hf][slices(fill.hf_box)]
    assert torch.equal(stored[: len(whole)], whole)
    assert not stored[len(whole) :].any(), "padding is zero"


def box_of(cut: Cut) -> tuple[slice, ...]:
    pairs = zip(cut.offsets, cut.sizes, strict=True)
    return tuple(slice(offset, offset + size) for offset, size in pairs)


def save_with_megatron(layout: dict[str, Any], root: Path) -> None:
    from tests.mcore.test_checkpoint import learner_at, save, step

    learner = learner_at("fp32", layout)
    step(learner, 0)
    save(root, learner)


@pytest.mark.engine
@pytest.mark.parametrize(
    "layout",
    [{}, {"tensor": 2}, {"tensor": 4, "pipeline": 1}, {"pipeline": 2, "virtual_pipeline": 2}],
    ids=["one", "tp2", "tp4", "vpp2"],
)
def test_the_same_boxes_as_the_trainer_saves(
    convert: Convert, tmp_path: Path, layout: dict[str, int]
) -> None:
    """Keys, sizes, boxes and objects; only interleaved heads of one group a rank are cut finer."""
    torch.set_num_threads(1)
    world = train_section(**layout).parallel.world_size
    run_ranks(world, save_with_megatron, layout, tmp_path, folder=tmp_path)
    hf_model().save_pretrained(tmp_path / "hf")
    convert.to_mcore(tmp_path / "hf", tmp_path / "ours", parallel=Parallel(**layout))
    trained, ours = described(tmp_path / "step_000001"), described(tmp_path / "ours")
    one_group_a_rank = SHAPE.num_kv_heads == layout.get("tensor", 1)
    for key, found in trained.items():
        if one_group_a_rank and key.endswith("linear_qkv.weight"):
            assert ours[key][0] == found[0]
        else:
            assert ours[key] == found, key
    assert ours.keys() - trained.keys() == {
        "decoder.final_layernorm._extra_state/shard_0_1",
        *(f"decoder.layers.self_attention.core_attention._extra_state/shard_{i}_4" for i in range(4)),
    }


def described(folder: Path) -> dict[str, Any]:
    """Sizes and boxes of the model's tensors; None for objects."""
    metadata = FileSystemReader(folder).read_metadata()
    return {
        key: (tuple(stored.size), sorted((tuple(c.offsets), tuple(c.sizes)) for c in stored.chunks))
        if isinstance(stored, TensorStorageMetadata)
        else None
        for key, stored in metadata.state_dict_metadata.items()
        if not key.startswith("optimizer.")
    }
