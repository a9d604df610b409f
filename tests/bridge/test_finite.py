"""A number that is none is found wherever it lies, and nothing else is taken for one."""

from math import inf, nan

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from apriel_mcore.bridge.finite import not_finite
from apriel_mcore.bridge.plan import Coordinates, make_plan
from apriel_mcore.config.schema import Parallel
from tests.bridge.conftest import make_shape
from tests.bridge.test_reshard import empty_chunks

PLAN = make_plan(make_shape(), Parallel(), "local")
RANK = Coordinates(tensor_rank=0, pipeline_rank=0, data_rank=0, context_rank=0, chunks=PLAN.chunks[0])
COPIES = PLAN.exports_of(RANK)


@given(
    number=st.sampled_from([nan, inf, -inf]),
    copy=st.sampled_from(COPIES),
    where=st.integers(0, 10**6),
    dtype=st.sampled_from([torch.bfloat16, torch.float16, torch.float32]),
)
def test_one_element_is_enough(number: float, copy: object, where: int, dtype: torch.dtype) -> None:
    (chunk,) = empty_chunks(PLAN, RANK)
    chunk = {name: torch.ones_like(weight, dtype=dtype) for name, weight in chunk.items()}
    assert not_finite([chunk], COPIES) == []
    box = chunk[copy.parameter][tuple(slice(*span) for span in copy.shard)]  # type: ignore[attr-defined]
    place = [int(index) for index in torch.unravel_index(torch.tensor(where % box.numel()), box.shape)]
    box[tuple(place)] = number
    assert not_finite([chunk], COPIES) == [copy.hf]  # type: ignore[attr-defined]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_a_sum_that_overflows_accuses_nobody(dtype: torch.dtype) -> None:
    (chunk,) = empty_chunks(PLAN, RANK)
    largest = torch.finfo(dtype).max
    chunk = {name: torch.full_like(weight, largest, dtype=dtype) for name, weight in chunk.items()}
    assert not chunk["embedding.word_embeddings.weight"].sum().isfinite()
    assert not_finite([chunk], COPIES) == []


def test_infinities_that_cancel_are_found() -> None:
    (chunk,) = empty_chunks(PLAN, RANK)
    for weight in chunk.values():
        weight.zero_()
    chunk["decoder.final_layernorm.weight"][:2] = torch.tensor([inf, -inf])
    assert not_finite([chunk], COPIES) == ["model.norm.weight"]


def test_rows_of_padding_are_not_sent_and_not_looked_at() -> None:
    shape = make_shape(vocab=11)
    plan = make_plan(shape, Parallel(tensor=2), "local")
    rank = Coordinates(tensor_rank=1, pipeline_rank=0, data_rank=0, context_rank=0, chunks=plan.chunks[0])
    (chunk,) = empty_chunks(plan, rank)
    for weight in chunk.values():
        weight.zero_()
    chunk["output_layer.weight"][-1] = nan
    assert not_finite([chunk], plan.exports_of(rank)) == []
