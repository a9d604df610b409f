"""What does a packed row look like to this rank? Tokens, sequence bounds, and which positions to score.

    Batch, Row --pack--> PackedRow (tensors)

Shape suffixes: _S tokens of the row on this context rank, _T response tokens of the whole row, _M those
of them whose scores this context rank computes, _N samples of the row.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
from megatron.core.packed_seq_params import PackedSeqParams
from torch import Tensor

from apriel_mcore.mcore.parallel import Ranks
from apriel_mcore.mcore.zigzag import zigzag
from apriel_mcore.types import Sample

PAD_TOKEN = 0
"""Stands behind a sample, where nothing before it looks and no loss is taken: any id will do."""


@dataclass(frozen=True, kw_only=True)
class PackedRow:
    """One micro-batch on one rank."""

    tokens_S: Tensor
    """int64 token ids in the order of this context rank."""
    packing: PackedSeqParams
    """Bounds of the sequences in the whole row, padding included."""
    source_M: Tensor
    """int64, position in tokens_S whose hidden state predicts a response token."""
    targets_M: Tensor
    """int64, that response token."""
    temperature_M: Tensor
    """float32, of the distribution that it was sampled from."""
    place_M: Tensor
    """int64, its place among the response tokens of the row."""
    behaviour_T: Tensor
    """float32, log-prob under the policy that sampled it."""
    sample_T: Tensor
    """int64, the sample it belongs to, counted within the row."""
    advantages_N: Tensor
    """float32."""


def pad_multiple(ranks: Ranks) -> int:
    """Tokens that each sample must be a multiple of: two chunks a context rank, each split by
    sequence parallelism."""
    context = 2 * ranks.sizes.context if ranks.sizes.context > 1 else 1
    return context * (ranks.sizes.tensor if ranks.sizes.sequence else 1)


def row_length(samples: Sequence[Sample], multiple: int, *, row_multiple: int) -> int:
    """Tokens of the packed row over all context ranks, padding included: of each sample to a multiple of
    `multiple`, and of the row to one of `row_multiple` too (FP8 asks for that)."""
    step = math.lcm(multiple, row_multiple)
    return max(1, -(-sum(_padded_lengths(samples, multiple)) // step)) * step


def pack(
    samples: Sequence[Sample], *, multiple: int, length: int, ranks: Ranks, device: torch.device
) -> PackedRow:
    """The samples one behind the other, each padded to a multiple of `multiple` tokens.

    A padding sequence without response tokens fills the row up to `length`; a row without samples is
    nothing else: it runs and adds nothing.
    """
    bounds = [0, *accumulate(_padded_lengths(samples, multiple))]
    if bounds[-1] < length:
        bounds.append(length)
    tokens: list[int] = []
    sources: list[int] = []
    for sample, (start, end) in zip(samples, pairwise(bounds), strict=False):
        assert sample.prompt_T, "the first response token needs a prompt token before it"
        tokens += [*sample.prompt_T, *sample.response_T]
        tokens += [PAD_TOKEN] * (end - len(tokens))
        first = start + len(sample.prompt_T) - 1
        sources += range(first, first + len(sample.response_T))
    tokens += [PAD_TOKEN] * (bounds[-1] - len(tokens))

    targets_T = _long([token for sample in samples for token in sample.response_T])
    temperature_T = _floats([sample.temperature for sample in samples for _ in sample.response_T])
    positions_S = zigzag(bounds, ranks.sizes.context, ranks.context)
    source_M, place_M = _local(_long(sources), positions_S)
    return PackedRow(
        tokens_S=_long(tokens)[positions_S].to(device),
        packing=_packing(bounds, device),
        source_M=source_M.to(device),
        targets_M=targets_T[place_M].to(device),
        temperature_M=temperature_T[place_M].to(device),
        place_M=place_M.to(device),
        behaviour_T=_floats([value for sample in samples for value in sample.logprobs_T]).to(device),
        sample_T=torch.arange(len(samples))
        .repeat_interleave(_long([len(s.response_T) for s in samples]))
        .to(device),
        advantages_N=_floats([sample.advantage for sample in samples]).to(device),
    )


def _padded_lengths(samples: Sequence[Sample], multiple: int) -> list[int]:
    return [-(-sample.num_tokens // multiple) * multiple for sample in samples]


def _local(sources_T: Tensor, positions_S: Tensor) -> tuple[Tensor, Tensor]:
    """Of the source positions of the row: where in `positions_S` they lie, and which ones do."""
    total = int(max(positions_S.max(), sources_T.max() if len(sources_T) else 0)) + 1
    index_in_S = torch.full((total,), -1).index_copy(0, positions_S, torch.arange(len(positions_S)))
    source_T = index_in_S[sources_T]
    (place_M,) = (source_T >= 0).nonzero(as_tuple=True)
    return source_T[place_M], place_M


def _packing(bounds: list[int], device: torch.device) -> PackedSeqParams:
    """Padding belongs to the sequence in front of it: causally, nothing real looks at it."""
    cu_seqlens = torch.tensor(bounds, dtype=torch.int32, device=device)
    longest = max(end - start for start, end in pairwise(bounds))
    return PackedSeqParams(
        qkv_format="thd",
        cu_seqlens_q=cu_seqlens,
        cu_seqlens_kv=cu_seqlens,
        max_seqlen_q=longest,
        max_seqlen_kv=longest,
    )


def _long(values: list[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)


def _floats(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)
