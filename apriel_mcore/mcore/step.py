"""How does a batch become one optimizer step, on every layout alike?

    rows of this data rank --pipeline schedule--> scores at response positions --> policy loss of a row
    --> gradients, summed over rows, data and context ranks --> clip, AdamW

The loss of a row comes divided by constants of the whole step, so nothing is averaged afterwards: not
over micro-batches, ranks or tokens. The loss and all sums exist on the last pipeline stage; one
reduction makes them equal everywhere.

Shape suffixes as in mcore/rows.py.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from megatron.core.distributed import DistributedDataParallel, finalize_model_grads
from megatron.core.pipeline_parallel import get_forward_backward_func
from megatron.core.tensor_parallel import (
    copy_to_tensor_model_parallel_region,
    gather_from_sequence_parallel_region,
    reduce_from_tensor_model_parallel_region,
)
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor

from apriel_mcore.config.schema import Loss
from apriel_mcore.loss.policy import policy_loss
from apriel_mcore.mcore import parallel
from apriel_mcore.mcore.logprobs import TokenScores, token_scores
from apriel_mcore.mcore.model import Model
from apriel_mcore.mcore.rows import PackedRow
from apriel_mcore.obs.spans import span

type RowLossFunction = Callable[[PackedRow, TokenScores], tuple[Tensor, Tensor]]
"""From a row and its scores (_T, whole row) to its loss and what to keep of it."""


@dataclass(frozen=True, kw_only=True)
class StepSums:
    """Over all response tokens of the step, equal on all ranks."""

    loss: float
    entropy: float
    tokens: float
    clipped_tokens: float
    abs_log_ratio: float
    k3: float


_SUMS = tuple(field.name for field in fields(StepSums))


def prepare(model: Model) -> None:
    """Tells Megatron's schedules how this model's gradients are synchronised, once after building."""
    config = model.config
    config.finalize_model_grads_func = _finalize
    if model.wrapped[0].ddp_config.overlap_grad_reduce:
        no_sync = [chunk.no_sync for chunk in model.wrapped]
        config.no_sync_func = no_sync if len(no_sync) > 1 else no_sync[0]  # pyright: ignore


def _finalize(model: list[Any], _num_tokens: Tensor | None, **groups: Any) -> None:
    """Megatron would divide the gradients by the number of tokens; the loss is divided already."""
    finalize_model_grads(model, None, **groups)


@span("gradients")
def accumulate_gradients(
    model: Model,
    rows: Sequence[PackedRow],
    *,
    settings: Loss,
    num_rollouts: int,
    num_tokens: int,
) -> StepSums:
    """Leaves the step's gradients in the model's buffers, summed over all ranks; collective."""

    def loss_of(row: PackedRow, found: TokenScores) -> tuple[Tensor, Tensor]:
        result = policy_loss(
            found.logprobs_N,
            behaviour_T=row.behaviour_T,
            sample_T=row.sample_T,
            advantages_N=row.advantages_N,
            num_rollouts=num_rollouts,
            num_tokens=num_tokens,
            settings=settings,
        )
        sums = {**result.sums._asdict(), "loss": result.loss.detach(), "entropy": found.entropy_N.sum()}
        return result.loss, torch.stack([sums[name].double() for name in _SUMS])

    for chunk in model.wrapped:
        chunk.zero_grad_buffer()
    kept = _run(model, rows, loss_of, forward_only=False)
    return _over_ranks(kept, rows[0].tokens_S.device)


def score(model: Model, rows: Sequence[PackedRow]) -> Tensor:
    """Log-probs of the first row's response tokens, float32 [T], equal on all ranks; collective.

    All rows run, because a schedule may need several.
    """

    def keep(_row: PackedRow, found: TokenScores) -> tuple[Tensor, Tensor]:
        return found.logprobs_N.sum(), found.logprobs_N.detach()

    with torch.no_grad():
        kept = _run(model, rows, keep, forward_only=True)
    logprobs_T = kept[0] if kept else torch.zeros_like(rows[0].behaviour_T)
    dist.all_reduce(logprobs_T, group=parallel.group("pipeline"))
    return logprobs_T


def _over_ranks(kept: list[Tensor], device: torch.device) -> StepSums:
    """Adds up what the rows of all data ranks kept; only ranks of the last stage kept anything."""
    sums = torch.stack([torch.zeros(len(_SUMS), dtype=torch.float64, device=device), *kept]).sum(dim=0)
    dist.all_reduce(sums, group=parallel.group("data"))
    dist.all_reduce(sums, group=parallel.group("pipeline"))
    return StepSums(**dict(zip(_SUMS, sums.tolist(), strict=True)))


def _run(
    model: Model,
    rows: Sequence[PackedRow],
    loss_of: RowLossFunction,
    *,
    forward_only: bool,
) -> list[Tensor]:
    """All rows through the pipeline; what `loss_of` keeps, on ranks of the last stage only."""
    head = partial(_response_scores, vocab_size=model.shape.vocab_size)

    def forward_step(
        row_iterator: Iterator[PackedRow], chunk: DistributedDataParallel
    ) -> tuple[Any, Callable[[Any], tuple[Tensor, Tensor, Tensor]]]:
        row = next(row_iterator)
        output = chunk(
            input_ids=row.tokens_S.unsqueeze(0),
            position_ids=None,
            attention_mask=None,
            packed_seq_params=row.packing,
            output_processor=head,
            output_processor_context=row,
        )
        return output, partial(weigh, row)

    def weigh(row: PackedRow, found: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        loss, kept = loss_of(row, _whole_row(row, TokenScores(*found)))  # Float16Module unnames the tuple
        return loss, torch.tensor(row.behaviour_T.numel(), dtype=torch.int), kept

    iterators = [iter(rows) for _ in model.wrapped]
    return get_forward_backward_func()(
        forward_step_func=forward_step,
        data_iterator=iterators if len(iterators) > 1 else iterators[0],
        model=list(model.wrapped) if len(model.wrapped) > 1 else model.wrapped[0],
        num_microbatches=len(rows),
        seq_length=int(rows[0].packing.cu_seqlens_q[-1]),  # asked for only where all rows have one length
        micro_batch_size=1,
        forward_only=forward_only,
    )


def _response_scores(
    *,
    hidden_states: Tensor,
    output_layer: Any,
    output_weight: Tensor | None,
    config: TransformerConfig,
    context: PackedRow,
    vocab_size: int,
    **_rest: Any,
) -> TokenScores:
    """Megatron's output hook of the last stage: the head at the scored positions only.

    hidden_states: [s, 1, h], s split over tensor ranks under sequence parallelism. Megatron passes
    more than is needed here.
    """
    group = parallel.group("tensor")
    # Either way backward sums the ranks' parts of the hidden states' gradient.
    if config.sequence_parallel:
        hidden_NH = gather_from_sequence_parallel_region(hidden_states, group=group)[context.source_M, 0]
    else:
        hidden_NH = copy_to_tensor_model_parallel_region(hidden_states[context.source_M, 0], group=group)
    weight = output_layer.weight if output_weight is None else output_weight
    first_token = group.rank() * weight.shape[0]
    num_real = min(weight.shape[0], vocab_size - first_token)
    return token_scores(
        hidden_NH,
        weight if num_real == weight.shape[0] else weight[:num_real],
        context.targets_M,
        first_token=first_token,
        temperature_N=context.temperature_M,
        group=group,
    )


def _whole_row(row: PackedRow, found: TokenScores) -> TokenScores:
    """From this context rank's scores to those of the row: sequence losses need all of a sequence.

    Each rank fills its places and the sum joins them. Every rank then takes the same loss of the whole
    row, and backward hands each its own places' gradient.
    """
    group = parallel.group("context")
    if group.size() == 1:
        return found
    both_2M = torch.stack([found.logprobs_N, found.entropy_N])
    both_2T = both_2M.new_zeros(2, row.behaviour_T.numel()).index_copy(1, row.place_M, both_2M)
    return TokenScores(*reduce_from_tensor_model_parallel_region(both_2T, group=group))
