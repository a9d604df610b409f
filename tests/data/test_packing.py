"""Packing loses nothing, overfills nothing, and is the same plan everywhere."""

from collections import Counter
from itertools import chain

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apriel_mcore.data.families import num_tokens
from apriel_mcore.data.packing import balance, cost, fill, kin_of, pack, plan_digest
from apriel_mcore.errors import InputError
from apriel_mcore.types import Batch, Sample

SEQ_LEN = 64
PAD = st.sampled_from([1, 2, 4, 8])
RANKS = st.integers(1, 5)
LENGTHS = st.lists(st.tuples(st.integers(1, 20), st.integers(0, 40)), max_size=40)


def sample(prompt: int, response: int, *, advantage: float = 0.5, token: int = 7) -> Sample:
    return Sample(
        domain="math",
        prompt_T=(3,) * prompt,
        response_T=(token,) * response,
        logprobs_T=(-0.5,) * response,
        advantage=advantage,
        version=0,
    )


def batch_of(lengths: list[tuple[int, int]], **options: int) -> Batch:
    settings = {"seq_len": SEQ_LEN, "num_data_ranks": 1, "num_rollouts": 8} | options
    return pack([sample(*length) for length in lengths], **settings)


@given(lengths=LENGTHS, num_data_ranks=RANKS, pad_multiple=PAD, multiple=st.integers(1, 4))
def test_every_sample_once_and_no_row_overfull(lengths, num_data_ranks, pad_multiple, multiple):
    batch = batch_of(
        lengths, num_data_ranks=num_data_ranks, pad_multiple=pad_multiple, micro_batch_multiple=multiple
    )
    rows = list(chain.from_iterable(batch.rows))
    assert sorted(chain.from_iterable(row.sample_ids for row in rows)) == list(range(len(lengths)))
    assert [(len(s.prompt_T), len(s.response_T)) for s in batch.samples] == lengths
    for row in rows:
        padded = [-(-batch.samples[i].num_tokens // pad_multiple) * pad_multiple for i in row.sample_ids]
        assert row.num_tokens == sum(padded) <= SEQ_LEN
    micro_batches = {len(own) for own in batch.rows}
    assert len(batch.rows) == num_data_ranks and len(micro_batches) == 1
    assert micro_batches.pop() % multiple == 0
    assert batch.num_response_tokens == sum(response for _, response in lengths)


@given(lengths=LENGTHS, num_prompts=st.integers(1, 4), num_data_ranks=RANKS, pad_multiple=PAD)
def test_answers_of_one_prompt_share_it_as_far_as_a_row_goes(
    lengths, num_prompts, num_data_ranks, pad_multiple
):
    prompts = [(number + 1,) * (5 * number + 3) for number in range(num_prompts)]
    samples = [
        msgspec.structs.replace(sample(1, response), prompt_T=prompts[i % num_prompts])
        for i, (_, response) in enumerate(lengths)
    ]
    settings = {"seq_len": SEQ_LEN, "num_rollouts": 8, "pad_multiple": pad_multiple}
    shared, apart = (
        pack(samples, num_data_ranks=num_data_ranks, share_prompts=share, **settings)
        for share in (True, False)
    )
    rows = [row for own in shared.rows for row in own]
    assert sorted(chain.from_iterable(row.sample_ids for row in rows)) == list(range(len(samples)))
    for row in rows:
        families = kin_of(shared, row)
        assert len(families) == len({family[0].prompt_T for family in families}), "a prompt stands there once"
        assert row.num_tokens == sum(-(-num_tokens(f) // pad_multiple) * pad_multiple for f in families)
        assert row.num_tokens <= SEQ_LEN
    assert sum(row.num_tokens for row in rows) <= sum(row.num_tokens for own in apart.rows for row in own)
    if all(sum(len(s.response_T) for s in samples) + len(p) <= SEQ_LEN - pad_multiple for p in prompts):
        assert sum(len(kin_of(shared, row)) for row in rows) == min(num_prompts, len(samples))
    if samples:
        assert 0 < fill(shared, seq_len=SEQ_LEN) <= 1 and 0 < balance(shared) <= 1


@given(lengths=LENGTHS, order=st.randoms(use_true_random=False), num_data_ranks=RANKS)
def test_plan_depends_on_lengths_and_not_on_their_order(lengths, order, num_data_ranks):
    shuffled = list(lengths)
    order.shuffle(shuffled)
    one, two = (batch_of(each, num_data_ranks=num_data_ranks) for each in (lengths, shuffled))

    def shape(batch: Batch) -> list[list[Counter[int]]]:
        return [
            [Counter(batch.samples[i].num_tokens for i in row.sample_ids) for row in own]
            for own in batch.rows
        ]

    assert shape(one) == shape(two)
    assert batch_of(lengths, num_data_ranks=num_data_ranks) == one


@given(lengths=LENGTHS, num_data_ranks=RANKS)
def test_rows_are_as_few_as_first_fit_decreasing_allows(lengths, num_data_ranks):
    batch = batch_of(lengths, num_data_ranks=num_data_ranks)
    tokens = sum(prompt + response for prompt, response in lengths)
    optimal_at_least = -(-tokens // SEQ_LEN)
    # A bin that first-fit opens after another cannot have fitted there, so all but one are over half full.
    most_bins = max(1, 2 * optimal_at_least + 1)
    assert len(batch.rows[0]) <= -(-most_bins // num_data_ranks)
    assert fill(batch, seq_len=SEQ_LEN) == pytest.approx(
        tokens / (SEQ_LEN * num_data_ranks * len(batch.rows[0]))
    )


def test_a_tight_fit_falls_back_to_the_bins_that_are_known_to_fit():
    # By cost, the two 32s are parted and the 8 finds no room; first-fit puts them together.
    batch = batch_of([(1, 31), (1, 31), (1, 29), (1, 15), (1, 9), (1, 7)], num_data_ranks=1)
    assert fill(batch, seq_len=SEQ_LEN) == 1.0
    assert len(batch.rows[0]) == 2


def test_rows_that_exist_anyway_are_shared_out():
    batch = batch_of([(1, 31)] * 6, num_data_ranks=4)
    assert [len(own) for own in batch.rows] == [1] * 4
    assert sorted(row.num_tokens for (row,) in batch.rows) == [32, 32, 64, 64]


def test_fewer_samples_than_ranks_leave_empty_rows():
    batch = batch_of([(1, 1)], num_data_ranks=3, micro_batch_multiple=2)
    assert sorted(len(row.sample_ids) for own in batch.rows for row in own) == [0, 0, 0, 0, 0, 1]


def test_data_ranks_have_equal_cost():
    lengths = [(4, 12 + (37 * i) % 49) for i in range(200)]
    batch = batch_of(lengths, num_data_ranks=8)
    assert balance(batch) > 0.98
    assert fill(batch, seq_len=SEQ_LEN) > 0.85


def test_cost_grows_faster_than_length():
    assert cost([sample(1990, 10)]) > 2 * cost([sample(990, 10)])


def test_samples_without_advantage_are_kept():
    batch = pack(
        [sample(1, 2, advantage=0.0)] * 3, seq_len=SEQ_LEN, num_data_ranks=1, num_rollouts=8, pad_multiple=1
    )
    assert sum(len(row.sample_ids) for row in batch.rows[0]) == 3


@pytest.mark.parametrize(("response", "pad_multiple"), [(64, 1), (60, 48)])
def test_a_sample_longer_than_a_row_is_the_users_error(response, pad_multiple):
    with pytest.raises(InputError, match=r"train\.seq_len = 64"):
        batch_of([(1, response)], pad_multiple=pad_multiple)


@given(lengths=LENGTHS.filter(bool))
def test_digest_tells_batches_apart(lengths):
    batch = batch_of(lengths, num_data_ranks=2)
    assert plan_digest(batch) == plan_digest(batch_of(lengths, num_data_ranks=2))
    other_sample = msgspec.structs.replace(batch.samples[-1], advantage=-0.25)
    for other in (
        msgspec.structs.replace(batch, samples=(*batch.samples[:-1], other_sample)),
        msgspec.structs.replace(batch, rows=batch.rows[::-1]),
        msgspec.structs.replace(batch, num_rollouts=9),
    ):
        if other != batch:
            assert plan_digest(other) != plan_digest(batch)
