"""The bench that counts what servers are sent finds the plan's bytes, and a wrong element."""

import itertools
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace

from apriel_mcore.bench import server_slices
from apriel_mcore.bench.reshard import PARALLEL, _fill, _ranks, _shard_sizes, gather
from apriel_mcore.bench.shapes import SHAPES
from apriel_mcore.bridge.arena import Arena
from apriel_mcore.bridge.plan import make_plan

SHAPE = replace(
    SHAPES["1b"],
    hidden_size=64,
    num_layers=2,
    num_heads=8,
    num_kv_heads=4,
    head_dim=8,
    ffn_size=128,
    vocab_size=256,
)


def test_bytes_sent_are_the_plans(tmp_path: Path) -> None:
    plan = make_plan(SHAPE, PARALLEL, "local")
    shards = Arena.create(tmp_path / "shards", _shard_sizes(plan), "bfloat16")
    _fill(shards)
    ranks = itertools.product(range(PARALLEL.pipeline), range(PARALLEL.tensor))
    held = {rank: chunk for rank, (_, chunk) in zip(ranks, _ranks(plan, shards), strict=True)}
    gathered = gather(plan, shards)
    numbers = server_slices.measure(SHAPE, PARALLEL, held, gathered)
    norms = (2 * SHAPE.num_layers + 1) * SHAPE.hidden_size  # every rank of a server keeps them whole
    for ranks_of_server in server_slices.SERVER_RANKS:
        wanted = 2 * (SHAPE.num_parameters + (ranks_of_server - 1) * norms)
        assert numbers[f"server_tp{ranks_of_server}_bytes_sent"] == wanted

    gathered["model.layers.1.mlp.down_proj.weight"].view(torch.int16)[5, 7] += 1
    with pytest.raises(AssertionError, match="down_proj"):
        server_slices.measure(SHAPE, PARALLEL, held, gathered)
