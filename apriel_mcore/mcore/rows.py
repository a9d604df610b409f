"""What does a packed row look like to this rank? Tokens, sequence bounds, and which positions to score.

    Batch, Row --pack--> PackedRow (tensors)

Shape suffixes: _S tokens of the row on this context rank, _T response tokens of the whole row, _M those
of them whose scores this context rank computes, _N samples of the row.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from megatron.core.packed_seq_params import PackedSeqParams
from torch import Tensor

from apriel_mcore.data.families import families, num_tokens
from apriel_mcore.mcore.layout import RowLayout, lay_out
from apriel_mcore.mcore.parallel import Ranks
from apriel_mcore.mcore.zigzag import zigzag
from apriel_mcore.types import Sample


@dataclass
class RowPacking(PackedSeqParams):
    """What attention knows of a row: bounds of its sequences in the whole row, padding included."""

    prompts: tuple[int | None, ...] = ()
    """Of each sequence, the number of the one that it goes on from."""


@dataclass(frozen=True, kw_only=True)
class PackedRow:
    """One micro-batch on one rank."""

    tokens_S: Tensor
    """int64 token ids in the order of this context rank."""
    packing: RowPacking
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


def row_length(
    samples: Sequence[Sample], multiple: int, *, row_multiple: int, shared_prompts: bool = False
) -> int:
    """Tokens of the packed row over all context ranks, padding included: of each family to a multiple of
    `multiple`, and of the row to one of `row_multiple` too (FP8 asks for that)."""
    step = math.lcm(multiple, row_multiple)
    kin = families(samples, shared=shared_prompts)
    total = sum(-(-num_tokens([samples[i] for i in ids]) // multiple) * multiple for ids in kin)
    return max(1, -(-total // step)) * step


def pack(
    samples: Sequence[Sample],
    *,
    multiple: int,
    length: int,
    ranks: Ranks,
    device: torch.device,
    shared_prompts: bool = False,
) -> PackedRow:
    """The samples one behind the other, each padded to a multiple of `multiple` tokens, or each family where
    prompts are shared (on one context rank).

    A padding sequence without response tokens fills the row up to `length`; a row without samples is
    nothing else: it runs and adds nothing.
    """
    layout = lay_out(samples, multiple=multiple, length=length, shared_prompts=shared_prompts)
    targets_T = _long([token for sample in samples for token in sample.response_T])
    temperature_T = _floats([sample.temperature for sample in samples for _ in sample.response_T])
    positions_S = zigzag(layout.bounds, ranks.sizes.context, ranks.context)
    source_M, place_M = _local(_long([place for places in layout.sources for place in places]), positions_S)
    return PackedRow(
        tokens_S=_long(layout.tokens)[positions_S].to(device),
        packing=_packing(layout, positions_S, device),
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


def _local(sources_T: Tensor, positions_S: Tensor) -> tuple[Tensor, Tensor]:
    """Of the source positions of the row: where in `positions_S` they lie, and which ones do."""
    total = int(max(positions_S.max(), sources_T.max() if len(sources_T) else 0)) + 1
    index_in_S = torch.full((total,), -1).index_copy(0, positions_S, torch.arange(len(positions_S)))
    source_T = index_in_S[sources_T]
    (place_M,) = (source_T >= 0).nonzero(as_tuple=True)
    return source_T[place_M], place_M


def _packing(layout: RowLayout, positions_S: Tensor, device: torch.device) -> RowPacking:
    cu_seqlens = torch.tensor(layout.bounds, dtype=torch.int32, device=device)
    longest = max(layout.places) + 1
    # Megatron hands to the rotation what stands as padded bounds; that of a CPU takes places instead.
    places_S = _long(layout.places)[positions_S] if device.type == "cpu" else None
    return RowPacking(
        qkv_format="thd",
        cu_seqlens_q=cu_seqlens,
        cu_seqlens_kv=cu_seqlens,
        cu_seqlens_q_padded=places_S,  # pyright: ignore[reportArgumentType]  (None is its default)
        cu_seqlens_kv_padded=places_S,  # pyright: ignore[reportArgumentType]
        max_seqlen_q=longest,
        max_seqlen_kv=longest,
        prompts=tuple(layout.prompts),
    )


def _long(values: list[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)


def _floats(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)
