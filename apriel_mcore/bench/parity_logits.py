"""What does the trainer's model say of a text before any loss: all logits, wherever its ranks hold them?

    text --pipeline schedule--> Megatron's own head --gather over tensor ranks--> places of this context rank
    --sum over context and pipeline ranks--> logits_TV

The trainer itself never makes this tensor (mcore/logprobs.py works in chunks, with a head of its own).

Shape suffixes: _T tokens of the text, _M those on this context rank, _V vocabulary without padding.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from megatron.core.pipeline_parallel import get_forward_backward_func
from torch import Tensor

from apriel_mcore.mcore import parallel
from apriel_mcore.mcore.learner import MegatronLearner
from apriel_mcore.mcore.rows import PackedRow, pack, row_length
from apriel_mcore.types import Sample


@torch.no_grad()
def text_logits(learner: MegatronLearner, tokens_T: Sequence[int]) -> Tensor:
    """Float32 [T, V] under the current weights, equal on all ranks; collective."""
    row = _row(learner, tokens_T)
    kept = _run(learner, row)
    logits_TV = torch.zeros(len(tokens_T), learner.model.shape.vocab_size)
    if kept:
        logits_TV[row.place_M] = kept[0]
    for axis in ("context", "pipeline"):
        dist.all_reduce(logits_TV, group=parallel.group(axis))
    return logits_TV


def _row(learner: MegatronLearner, tokens_T: Sequence[int]) -> PackedRow:
    """The text with a token behind it, so that every position of the text predicts one."""
    sample = Sample(
        domain="",
        prompt_T=tuple(tokens_T[:1]),
        response_T=(*tokens_T[1:], 0),
        logprobs_T=(0.0,) * len(tokens_T),
        advantage=0.0,
        version=0,
    )
    length = row_length([sample], learner.pad_multiple, row_multiple=1)
    ranks = learner.ranks
    return pack([sample], multiple=learner.pad_multiple, length=length, ranks=ranks, device=parallel.device())


def _run(learner: MegatronLearner, row: PackedRow) -> list[Tensor]:
    """Logits [M, V] of every repetition of the row, on ranks of the last stage only."""
    sizes = learner.ranks.sizes
    repeated = sizes.pipeline if sizes.virtual_pipeline > 1 else 1  # what the interleaved schedule asks for
    chunks: list[Any] = list(learner.model.wrapped)
    rows = [iter([row] * repeated) for _ in chunks]
    several = len(chunks) > 1
    return get_forward_backward_func()(
        forward_step_func=partial(_forward, learner.model.shape.vocab_size),
        data_iterator=rows if several else rows[0],
        model=chunks if several else chunks[0],
        num_microbatches=repeated,
        seq_length=int(row.packing.cu_seqlens_q[-1]),
        micro_batch_size=1,
        forward_only=True,
    )


def _forward(
    vocab_size: int, rows: Iterator[PackedRow], chunk: Any
) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]]:
    """One chunk of the model, with nothing of ours behind it."""
    row = next(rows)
    output = chunk(
        input_ids=row.tokens_S.unsqueeze(0),
        position_ids=None,
        attention_mask=None,
        packed_seq_params=row.packing,
    )
    return output, partial(_gather, row, vocab_size)


def _gather(row: PackedRow, vocab_size: int, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """From Megatron's [1, tokens of this context rank, this tensor rank's rows of the padded vocabulary]."""
    mine = logits[0, row.source_M].float()
    group = parallel.group("tensor")
    parts = [torch.empty_like(mine) for _ in range(group.size())]
    dist.all_gather(parts, mine, group=group)
    logits_MV = torch.cat(parts, dim=1)[:, :vocab_size]
    return torch.zeros(()), torch.tensor(1, dtype=torch.int), logits_MV
