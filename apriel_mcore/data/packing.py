"""Which samples share a row, and which data rank trains it as which micro-batch?

    samples -> families of one prompt -> rows of at most seq_len tokens -> data ranks of equal cost -> Batch

A pure function of the samples: every rank computes the whole plan, compares its digest with the others, and
picks its own rows. The loss is normalised by constants of the step, so it does not depend on the plan.
"""

import hashlib
from collections.abc import Sequence

import msgspec

from apriel_mcore.config.schema import RunConfig
from apriel_mcore.data.families import families, num_tokens
from apriel_mcore.errors import InputError
from apriel_mcore.types import Batch, Row, Sample

ATTENTION_TOKENS = 32768
"""Sequence length at which attention costs as much as the matrix products; about 12 x the hidden size."""

EMPTY = Row(sample_ids=(), num_tokens=0)


def pack(
    samples: Sequence[Sample],
    *,
    seq_len: int,
    num_data_ranks: int,
    num_rollouts: int,
    pad_multiple: int = 1,
    micro_batch_multiple: int = 1,
    share_prompts: bool = False,
) -> Batch:
    """Plan one optimizer step over `num_data_ranks` x micro-batches rows of at most `seq_len` tokens.

    Samples of one prompt are kept together where `share_prompts`, as far as they fit into a row. Each family
    counts with its padding to `pad_multiple`. The micro-batches of a rank are as few as first-fit
    decreasing needs, rounded up to `micro_batch_multiple` (the interleaved pipeline schedule wants a multiple
    of its stages). InputError for a sample that is longer than a row.
    """
    for sample in samples:
        length = _padded(sample.num_tokens, pad_multiple)
        if length > seq_len:
            raise InputError(
                f"a {sample.domain} sample of {sample.num_tokens} tokens ({length} with padding) exceeds "
                f"train.seq_len = {seq_len}; raise it to the longest prompt plus rollout.max_output_tokens"
            )
    most = seq_len // pad_multiple * pad_multiple
    members = families(samples, shared=share_prompts, most_tokens=most)
    kin = [[samples[i] for i in ids] for ids in members]
    lengths = [_padded(num_tokens(family), pad_multiple) for family in kin]
    costs = [cost(family) for family in kin]
    bins = _fewest_bins(lengths, seq_len)
    num_micro_batches = max(1, _ceil_div(len(bins), num_data_ranks))
    num_micro_batches = _ceil_div(num_micro_batches, micro_batch_multiple) * micro_batch_multiple
    bins = _even_bins(lengths, costs, seq_len, num_data_ranks * num_micro_batches) or bins
    rows = [
        Row(
            sample_ids=tuple(sorted(i for number in numbers for i in members[number])),
            num_tokens=sum(lengths[number] for number in numbers),
        )
        for numbers in bins
    ]
    row_costs = [sum(costs[number] for number in numbers) for numbers in bins]
    return Batch(
        samples=tuple(samples),
        rows=_over_ranks(rows, row_costs, num_data_ranks, num_micro_batches),
        num_rollouts=num_rollouts,
        num_response_tokens=sum(len(sample.response_T) for sample in samples),
        pad_multiple=pad_multiple,
        shared_prompts=share_prompts,
    )


def pack_step(samples: Sequence[Sample], config: RunConfig, *, num_data_ranks: int) -> Batch:
    """`pack` as the recipe asks for it."""
    parallel = config.train.parallel
    context = 2 * parallel.context if parallel.context > 1 else 1
    return pack(
        samples,
        seq_len=config.train.seq_len,
        num_data_ranks=num_data_ranks,
        num_rollouts=config.train.groups_per_step * config.rollout.group_size,
        pad_multiple=context * (parallel.tensor if parallel.sequence else 1),
        micro_batch_multiple=parallel.pipeline if parallel.virtual_pipeline > 1 else 1,
        share_prompts=config.train.share_prompts,
    )


def cost(family: Sequence[Sample]) -> float:
    """Estimated time of samples of one prompt, in matrix-product times of a token; attention grows with the
    square of each sample's length."""
    return num_tokens(family) + sum(sample.num_tokens**2 for sample in family) / ATTENTION_TOKENS


def kin_of(batch: Batch, row: Row) -> list[list[Sample]]:
    """The families of a row."""
    samples = [batch.samples[i] for i in row.sample_ids]
    return [[samples[i] for i in ids] for ids in families(samples, shared=batch.shared_prompts)]


def fill(batch: Batch, *, seq_len: int) -> float:
    """Share of the rows' capacity that holds real tokens, in [0, 1]; empty rows count as capacity."""
    rows = [row for own in batch.rows for row in own]
    return sum(num_tokens(family) for row in rows for family in kin_of(batch, row)) / (len(rows) * seq_len)


def balance(batch: Batch) -> float:
    """Mean over maximum of the data ranks' estimated cost, in (0, 1]; below 1 the others wait."""
    costs = [sum(cost(family) for row in rows for family in kin_of(batch, row)) for rows in batch.rows]
    return sum(costs) / len(costs) / max(costs) if max(costs) > 0 else 1.0


def plan_digest(batch: Batch) -> str:
    """Hash of samples and plan; ranks whose digests differ would train different batches."""
    digest = hashlib.blake2b(digest_size=16)
    encoder = msgspec.msgpack.Encoder()
    for sample in batch.samples:
        digest.update(encoder.encode(sample))
    plan = (
        batch.rows,
        batch.num_rollouts,
        batch.num_response_tokens,
        batch.pad_multiple,
        batch.shared_prompts,
    )
    digest.update(encoder.encode(plan))
    return digest.hexdigest()


def _longest_first(lengths: Sequence[int]) -> list[int]:
    return sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))


def _fewest_bins(lengths: Sequence[int], seq_len: int) -> list[list[int]]:
    """First-fit decreasing: at most 11/9 of the optimal number of bins, plus one."""
    bins: list[list[int]] = []
    room: list[int] = []
    for i in _longest_first(lengths):
        place = next((b for b, left in enumerate(room) if left >= lengths[i]), len(bins))
        if place == len(bins):
            bins.append([])
            room.append(seq_len)
        bins[place].append(i)
        room[place] -= lengths[i]
    return bins


def _even_bins(
    lengths: Sequence[int], costs: Sequence[float], seq_len: int, num_bins: int
) -> list[list[int]]:
    """Longest sample first into the cheapest bin that has room; no bins at all if one finds none.

    Rows that exist anyway are better shared out than left empty: ranks and pipeline stages wait less.
    """
    bins: list[list[int]] = [[] for _ in range(num_bins)]
    room = [seq_len] * num_bins
    totals = [0.0] * num_bins
    for i in _longest_first(lengths):
        fitting = [b for b in range(num_bins) if room[b] >= lengths[i]]
        if not fitting:
            return []
        place = min(fitting, key=totals.__getitem__)
        bins[place].append(i)
        room[place] -= lengths[i]
        totals[place] += costs[i]
    return bins


def _over_ranks(
    rows: Sequence[Row], costs: Sequence[float], num_data_ranks: int, num_micro_batches: int
) -> tuple[tuple[Row, ...], ...]:
    """Costliest row first to the cheapest rank with a free place; so each rank begins with its costliest."""
    ranks: list[list[Row]] = [[] for _ in range(num_data_ranks)]
    totals = [0.0] * num_data_ranks
    for r in sorted(range(len(rows)), key=lambda r: (-costs[r], r)):
        free = [d for d in range(num_data_ranks) if len(ranks[d]) < num_micro_batches]
        place = min(free, key=totals.__getitem__)
        ranks[place].append(rows[r])
        totals[place] += costs[r]
    return tuple((*own, *[EMPTY] * (num_micro_batches - len(own))) for own in ranks)


def _padded(tokens: int, multiple: int) -> int:
    return _ceil_div(tokens, multiple) * multiple


def _ceil_div(number: int, divisor: int) -> int:
    return -(-number // divisor)
