"""FP8 of shards: the nearest numbers by a float64 oracle, and the same bytes at every layout."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from apriel_mcore.bridge.arena import Arena
from apriel_mcore.bridge.plan import Coordinates, make_plan
from apriel_mcore.bridge.quantise import FP8, QuantisedTrainer, largest, quantise
from apriel_mcore.bridge.receipt import summarize
from apriel_mcore.bridge.reshard import check_shards, export_shard, load_hf_weights
from apriel_mcore.bridge.scales import Scheme, scales_for, with_scales
from apriel_mcore.bridge.shape import ModelShape
from apriel_mcore.config.schema import Optimizer, Parallel, Train
from apriel_mcore.errors import BridgeError
from apriel_mcore.memory import training_memory
from tests.bridge.conftest import make_shape
from tests.bridge.test_reshard import empty_chunks

SHAPE = make_shape(groups=4, heads_per_group=2, head_dim=24, hidden=200, ffn=320)
"""Head groups, and shares of two ranks, end within blocks of 128."""
LAYOUTS = [
    Parallel(),
    Parallel(tensor=2),
    Parallel(tensor=4, pipeline=2),
    Parallel(pipeline=2, virtual_pipeline=2),
]


def weight(rows: int, columns: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """Normal, one column fifty times larger, one corner zero."""
    drawn = torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows))
    drawn[:, columns // 3] *= 50
    drawn[:128, :128] *= 0 if rows > 128 else 1
    return drawn.to(dtype)


def whole(box: Tensor) -> tuple[tuple[int, int], ...]:
    return tuple((0, size) for size in box.shape)


def scales_of(box: Tensor, cell: tuple[int, int]) -> Tensor:
    scale = largest(box, whole(box), cell) / 448
    return scale.masked_fill(scale == 0, 1.0)


def spread(scale_RC: Tensor, cell: tuple[int, int], box: Tensor) -> Tensor:
    tall = scale_RC.repeat_interleave(cell[0], 0).repeat_interleave(cell[1], 1)
    return tall[: box.shape[0], : box.shape[1]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("cell", [(128, 128), (300, 200)])
def test_every_element_is_the_nearest_fp8_number(cell: tuple[int, int], dtype: torch.dtype) -> None:
    box = weight(300, 200, dtype)
    kept = box.clone()
    scale_RC = scales_of(box, cell)
    found = quantise(box, whole(box), cell, scale_RC)
    assert torch.equal(box, kept)

    exact = box.double()
    for row in range(scale_RC.shape[0]):
        for column in range(scale_RC.shape[1]):
            r, c = row * cell[0], column * cell[1]
            top = exact[r : r + cell[0], c : c + cell[1]].abs().max()
            assert scale_RC[row, column].item() == pytest.approx((top / 448).item() or 1.0, rel=2**-23)
    numbers = torch.arange(256, dtype=torch.uint8).view(FP8).double()
    numbers = numbers[numbers.isfinite()]
    scaled = exact / spread(scale_RC, cell, box).double()
    nearest = (scaled[..., None] - numbers).abs().amin(-1)
    error = (scaled - found.double()).abs()
    # float32 division moves a quotient by half a unit in its last place: so near a tie either is nearest.
    assert (error <= nearest + scaled.abs() * 2**-23).all()
    half_unit = 2.0 ** (scaled.abs().clamp(min=2**-6).log2().floor() - 4)
    assert (error <= half_unit * (1 + 2**-20)).all()
    assert found.float().isfinite().all()


def test_what_fp8_can_say_is_kept_as_it_is() -> None:
    box = weight(300, 200)
    cell = (128, 128)
    scale_RC = scales_of(box, cell)
    once = quantise(box, whole(box), cell, scale_RC)
    again = quantise(once.float() * spread(scale_RC, cell, box), whole(box), cell, scale_RC)
    assert torch.equal(once.view(torch.uint8), again.view(torch.uint8))


@settings(max_examples=40, deadline=None)
@given(
    row=st.integers(1, 299),
    column=st.integers(1, 199),
    cell=st.sampled_from([(128, 128), (300, 200), (1, 7)]),
)
def test_shards_cut_anywhere_give_the_bytes_of_the_whole(
    row: int, column: int, cell: tuple[int, int]
) -> None:
    box = weight(300, 200)
    scale_RC = scales_of(box, cell)
    expected = quantise(box, whole(box), cell, scale_RC)
    table_RC = torch.zeros_like(scale_RC)
    cuts = [
        ((r0, r1), (c0, c1)) for r0, r1 in ((0, row), (row, 300)) for c0, c1 in ((0, column), (column, 200))
    ]
    for rows, columns in cuts:
        part = box[slice(*rows), slice(*columns)]
        cells = table_RC[_cells(rows, cell[0]), _cells(columns, cell[1])]
        torch.maximum(cells, largest(part, (rows, columns), cell), out=cells)
    assert torch.equal((table_RC / 448).masked_fill(table_RC == 0, 1.0), scale_RC)
    for rows, columns in cuts:
        part = box[slice(*rows), slice(*columns)]
        cells = scale_RC[_cells(rows, cell[0]), _cells(columns, cell[1])]
        found = quantise(part, (rows, columns), cell, cells)
        assert torch.equal(
            found.view(torch.uint8), expected[slice(*rows), slice(*columns)].view(torch.uint8).contiguous()
        )


def _cells(span: tuple[int, int], size: int) -> slice:
    return slice(span[0] // size, -(-span[1] // size))


class ThreadRanks:
    """The maximum over ranks that are threads."""

    def __init__(self, count: int) -> None:
        self._barrier = threading.Barrier(count)
        self._tables: list[Tensor] = []

    def maximum(self, values: Tensor) -> None:
        self._tables.append(values.clone())
        self._barrier.wait(timeout=20)
        values.copy_(torch.stack(self._tables).amax(0))
        if self._barrier.wait(timeout=20) == 0:
            self._tables.clear()
        self._barrier.wait(timeout=20)


class Loaded:
    """publish.Trainer with the weights of a folder."""

    def __init__(self, shape: ModelShape, parallel: Parallel, rank: Coordinates, folder: Path) -> None:
        plan = make_plan(shape, parallel, "local")
        self.coordinates = rank
        self.held = empty_chunks(plan, rank)
        load_hf_weights(self.held, plan, rank, folder)

    def chunks(self) -> Any:
        return self.held

    def logprobs(self, tokens_T: Sequence[int]) -> list[float]:
        return [-1.0] * (len(tokens_T) - 1)


def grid_of(shape: ModelShape, parallel: Parallel) -> list[Coordinates]:
    plan = make_plan(shape, parallel, "local")
    return [
        Coordinates(tensor_rank=t, pipeline_rank=p, data_rank=0, context_rank=0, chunks=plan.chunks[p])
        for p in range(parallel.pipeline)
        for t in range(parallel.tensor)
    ]


def quantised_trainers(
    shape: ModelShape, parallel: Parallel, scheme: Scheme, folder: Path
) -> list[QuantisedTrainer]:
    scales = scales_for(shape, scheme)
    plan = with_scales(make_plan(shape, parallel, "local"), scales)
    ranks = ThreadRanks(parallel.tensor * parallel.pipeline)
    return [
        QuantisedTrainer(Loaded(shape, parallel, rank, folder), plan, scales, ranks)
        for rank in grid_of(shape, parallel)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("model")
    arena = Arena.create(
        place / "model.safetensors", make_plan(SHAPE, Parallel(), "local").tensors, "bfloat16"
    )
    generator = torch.Generator().manual_seed(7)
    for view in arena.views.values():
        view.copy_(torch.randn(view.shape, generator=generator) * (0.02 + torch.rand(1, generator=generator)))
    return place


def published(parallel: Parallel, scheme: Scheme, folder: Path, path: Path) -> Arena:
    scales = scales_for(SHAPE, scheme)
    plan = with_scales(make_plan(SHAPE, parallel, "local"), scales)
    arena = Arena.create(path, plan.tensors, plan.dtypes("bfloat16"))
    trainers = quantised_trainers(SHAPE, parallel, scheme, folder)

    def export(trainer: QuantisedTrainer) -> None:
        for _ in range(2):  # what a first call left behind must not matter
            chunks = trainer.chunks()
        check_shards(chunks, plan, trainer.coordinates)
        export_shard(chunks, plan.exports_of(trainer.coordinates), arena)

    with ThreadPoolExecutor(len(trainers)) as threads:
        list(threads.map(export, trainers))
    return arena


@pytest.mark.parametrize("scheme", ["fp8_block", "fp8_tensor"])
def test_every_layout_publishes_the_same_bytes(scheme: Scheme, folder: Path, tmp_path: Path) -> None:
    arenas = [
        published(parallel, scheme, folder, tmp_path / f"{number}.safetensors")
        for number, parallel in enumerate(LAYOUTS)
    ]
    sent = [summarize(arena.mapping, where="arena") for arena in arenas]
    assert all(one == sent[0] for one in sent)
    assert len(sent[0].quantised) == 7
    assert sent[0].quantised[0] == "model.layers.0-3.mlp.down_proj.weight"

    trained = Arena.attach(folder / "model.safetensors").views
    for scale in scales_for(SHAPE, scheme).values():
        values, scale_tensor = arenas[0].views[scale.weight], arenas[0].views[scale.name]
        factor = spread(scale_tensor.view(scale.grid), scale.cell, values)
        error = (values.float() * factor - trained[scale.weight].float()).abs()
        assert (error <= factor * 16.01).all(), scale.weight  # half a unit of the largest numbers, 256 to 448
        assert error.max() > 0
    for name in ("model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"):
        assert torch.equal(arenas[0].views[name], trained[name])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_copy_that_stays_on_a_rank_is_what_memory_counts(layout: Parallel, folder: Path) -> None:
    train = Train(num_steps=1, groups_per_step=1, seq_len=64, optimizer=Optimizer(lr=1e-6), parallel=layout)
    stages = training_memory(SHAPE, train, num_micro_batches=1, weights_in="fp8_block")
    for trainer in quantised_trainers(SHAPE, layout, "fp8_block", folder):
        kept = [own for chunk in trainer._own for own in chunk.values() if own.dtype == FP8]
        counted = stages[trainer.coordinates.pipeline_rank].publish_copy
        assert sum(own.nbytes for own in kept) == counted > 0


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_weight_that_is_not_finite_stops_every_rank_by_name(bad: float, folder: Path) -> None:
    trainers = quantised_trainers(SHAPE, Parallel(tensor=2, pipeline=2), "fp8_block", folder)
    broken = trainers[2]._trainer
    assert isinstance(broken, Loaded)
    broken.held[0]["decoder.layers.0.mlp.linear_fc2.weight"][5, 7] = bad

    def outcome(trainer: QuantisedTrainer) -> str:
        try:
            trainer.chunks()
        except BridgeError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(len(trainers)) as threads:
        messages = list(threads.map(outcome, trainers))
    assert len(set(messages)) == 1
    assert messages[0].startswith("model.layers.2.mlp.down_proj.weight is not finite")
