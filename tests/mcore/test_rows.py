"""Packed rows: the zigzag partition covers every position once, and scores point at the right tokens."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from apriel_mcore.config.schema import Parallel
from apriel_mcore.types import Sample

pytestmark = pytest.mark.engine


def ranks_at(context: int, rank: int) -> Any:
    from apriel_mcore.mcore.parallel import Ranks

    sizes = Parallel(context=context)
    return Ranks(world=rank, tensor=0, pipeline=0, context=rank, data=0, sizes=sizes)


samples_strategy = st.lists(
    st.builds(
        lambda prompt, response: Sample(
            domain="math",
            prompt_T=tuple(prompt),
            response_T=tuple(response),
            logprobs_T=tuple(-float(token) for token in response),
            advantage=float(len(prompt)),
            version=0,
        ),
        st.lists(st.integers(1, 99), min_size=1, max_size=9),
        st.lists(st.integers(1, 99), min_size=1, max_size=9),
    ),
    max_size=4,
)


@settings(deadline=None, max_examples=40)
@given(samples=samples_strategy, context=st.sampled_from([1, 2, 4]), extra=st.integers(0, 2))
def test_context_ranks_share_the_row(samples: list[Sample], context: int, extra: int) -> None:
    from apriel_mcore.mcore.rows import pack, pad_multiple, row_length
    from apriel_mcore.mcore.zigzag import zigzag_inverse

    multiple = pad_multiple(ranks_at(context, 0))
    length = row_length(samples, multiple, row_multiple=1) + extra * multiple
    parts = [
        pack(
            samples,
            multiple=multiple,
            length=length,
            ranks=ranks_at(context, rank),
            device=torch.device("cpu"),
        )
        for rank in range(context)
    ]
    bounds = parts[0].packing.cu_seqlens_q.tolist()
    assert bounds[-1] == length
    assert {part.tokens_S.numel() for part in parts} == {length // context}
    row = torch.cat([part.tokens_S for part in parts])[zigzag_inverse(bounds, context)].tolist()
    for sample, start in zip(samples, bounds, strict=False):
        assert row[start : start + sample.num_tokens] == [*sample.prompt_T, *sample.response_T]
    responses = [token for sample in samples for token in sample.response_T]
    places = torch.cat([part.place_M for part in parts])
    assert sorted(places.tolist()) == list(range(len(responses)))
    for part in parts:
        assert part.targets_M.tolist() == [responses[place] for place in part.place_M]
        assert part.behaviour_T.tolist() == [-token for token in responses]
        assert part.sample_T.tolist() == [n for n, sample in enumerate(samples) for _ in sample.response_T]


@settings(deadline=None, max_examples=40)
@given(samples=samples_strategy.filter(bool))
def test_the_source_is_the_token_before(samples: list[Sample]) -> None:
    from apriel_mcore.mcore.rows import pack, row_length

    row = pack(
        samples,
        multiple=1,
        length=row_length(samples, 1, row_multiple=1),
        ranks=ranks_at(1, 0),
        device=torch.device("cpu"),
    )
    before = [
        [*sample.prompt_T, *sample.response_T][len(sample.prompt_T) - 1 + k]
        for sample in samples
        for k in range(len(sample.response_T))
    ]
    assert row.tokens_S[row.source_M].tolist() == before


@settings(deadline=None, max_examples=40)
@given(
    samples=samples_strategy,
    context=st.sampled_from([1, 2, 4]),
    alignment=st.sampled_from([1, 16, 32, 128]),
    more=st.sampled_from([1, 3]),
)
def test_rows_on_every_rank_have_the_length_that_fp8_asks_for(
    samples: list[Sample], context: int, alignment: int, more: int
) -> None:
    from apriel_mcore.mcore.rows import pack, pad_multiple, row_length

    ranks = ranks_at(context, 0)
    multiple = more * pad_multiple(ranks)
    length = row_length(samples, multiple, row_multiple=alignment * context)
    least = row_length(samples, multiple, row_multiple=1)
    assert least <= length < least + more * 2 * alignment * context
    row = pack(samples, multiple=multiple, length=length, ranks=ranks, device=torch.device("cpu"))
    assert row.tokens_S.numel() == length // context
    assert row.tokens_S.numel() % alignment == 0
    assert row.behaviour_T.numel() == sum(len(sample.response_T) for sample in samples)
