"""What does the policy say of given tokens? Log-probs and entropy without a logits tensor of the row.

    hidden_NH, weight_VH --> logits of a chunk of tokens, in float32 --> logprob_N, entropy_N

The vocabulary is split over tensor-parallel ranks; a chunk's logits exist only while it is worked on
and are computed again in backward, so memory does not grow with the row. The head runs in float32
whatever the model's precision (arXiv 2604.02007): bf16 logits drift by more than the clip bounds.

Shape suffixes: _N tokens asked for, _H hidden size, _V this rank's share of the vocabulary (padding
rows cut off), _C tokens of a chunk.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

CHUNK_BYTES = 128 * 2**20
"""float32 logits of one chunk on one rank."""
KEEP_BYTES = 512 * 2**20
"""Softmax outputs that may wait for backward; beyond them it computes the logits again."""


class TokenScores(NamedTuple):
    """Of each token asked for, float32, equal on all tensor-parallel ranks."""

    logprobs_N: Tensor
    """log p(target) with gradient."""
    entropy_N: Tensor
    """Entropy of the whole distribution, nats, detached: it is watched, not trained."""


def token_scores(
    hidden_NH: Tensor,
    weight_VH: Tensor,
    targets_N: Tensor,
    *,
    first_token: int,
    temperature_N: Tensor,
    group: dist.ProcessGroup,
) -> TokenScores:
    """Scores of `targets_N` under softmax(hidden weight^T / temperature) over the whole vocabulary.

    Args:
        hidden_NH: final hidden states, equal on all ranks of `group`. Its gradient is this rank's part
            only: the caller sums it over the group (copy_to or gather_from a Megatron region does).
        weight_VH: this rank's rows of the head, at least one, without padding rows.
        targets_N: int64 token ids of the whole vocabulary.
        first_token: id of the first row of weight_VH.
        temperature_N: float32; logits are divided by it, as the server that sampled the token did.
        group: tensor-parallel group that shares the vocabulary.
    """
    scores = _Head.apply(hidden_NH, weight_VH, targets_N, first_token, temperature_N, group)
    assert isinstance(scores, tuple)
    return TokenScores(*scores)


class _Softmax(NamedTuple):
    """One chunk under the softmax."""

    logprobs_C: Tensor
    entropy_C: Tensor
    log_normaliser_C: Tensor
    """log sum exp of the logits over the whole vocabulary."""
    exp_CV: Tensor
    """exp(z); over `normaliser_C` it is the probability."""
    normaliser_C: Tensor


class _Head(torch.autograd.Function):
    """Chunk by chunk, forward and backward."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_NH: Tensor,
        weight_VH: Tensor,
        targets_N: Tensor,
        first_token: int,
        temperature_N: Tensor,
        group: dist.ProcessGroup,
    ) -> tuple[Tensor, Tensor]:
        num_tokens, width = hidden_NH.shape[0], weight_VH.shape[0]
        weight32_VH = weight_VH.float()
        keep = num_tokens * width * 4 <= KEEP_BYTES and hidden_NH.requires_grad
        logprobs_N, entropy_N, log_normaliser_N = hidden_NH.new_empty((3, num_tokens), dtype=torch.float32)
        kept = []
        for chunk in _chunks(num_tokens, width):
            logits_CV = _scaled(hidden_NH, temperature_N, chunk) @ weight32_VH.T
            softmax = _softmax(logits_CV, targets_N[chunk] - first_token, group)
            logprobs_N[chunk] = softmax.logprobs_C
            entropy_N[chunk] = softmax.entropy_C
            log_normaliser_N[chunk] = softmax.log_normaliser_C
            if keep:
                kept.append(softmax.exp_CV.div_(softmax.normaliser_C[:, None]))
        ctx.save_for_backward(
            hidden_NH, weight_VH, targets_N - first_token, temperature_N, log_normaliser_N, *kept
        )
        ctx.mark_non_differentiable(entropy_N)
        return logprobs_N, entropy_N

    @staticmethod
    def backward(ctx: Any, grad_N: Tensor, _grad_entropy_N: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        """d log p(y) / d logits = onehot(y) - p, then through the product with the weight."""
        hidden_NH, weight_VH, local_targets_N, temperature_N, log_normaliser_N, *kept = ctx.saved_tensors
        weight32_VH = weight_VH.float()
        grad_hidden_NH = torch.empty_like(hidden_NH)
        grad_weight_VH = torch.empty_like(weight32_VH) if len(hidden_NH) else torch.zeros_like(weight32_VH)
        for number, chunk in enumerate(_chunks(hidden_NH.shape[0], weight_VH.shape[0])):
            scaled_CH = _scaled(hidden_NH, temperature_N, chunk)
            if kept:
                probs_CV = kept[number]
            else:
                probs_CV = torch.addmm(-log_normaliser_N[chunk, None], scaled_CH, weight32_VH.T).exp_()
            grad_CV = probs_CV.mul_(-grad_N[chunk, None])
            mine_C, index_C = _own(local_targets_N[chunk], weight_VH.shape[0])
            grad_CV.scatter_add_(1, index_C[:, None], (grad_N[chunk] * mine_C)[:, None])
            grad_scaled_CH = (grad_CV @ weight32_VH).div_(temperature_N[chunk, None])
            grad_hidden_NH[chunk] = grad_scaled_CH.to(hidden_NH.dtype)
            grad_weight_VH.addmm_(grad_CV.T, scaled_CH, beta=min(number, 1))  # the first sets it
        return grad_hidden_NH, grad_weight_VH.to(weight_VH.dtype), None, None, None, None


def _chunks(num_tokens: int, width: int) -> Iterator[slice]:
    """Slices of the tokens whose logits take at most CHUNK_BYTES."""
    size = max(1, CHUNK_BYTES // (4 * width))
    count = math.ceil(num_tokens / size)
    even = math.ceil(num_tokens / max(1, count))
    return (slice(number * even, (number + 1) * even) for number in range(count))


def _scaled(hidden_NH: Tensor, temperature_N: Tensor, chunk: slice) -> Tensor:
    """The chunk's hidden states over its temperatures, [C, H] float32; the logits would be V / H as much
    to divide."""
    return hidden_NH[chunk].float() / temperature_N[chunk, None]


def _own(local_targets_C: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Which targets this rank holds (float 0 or 1), and their rows (0 where it does not)."""
    mine_C = (local_targets_C >= 0) & (local_targets_C < width)
    return mine_C.float(), local_targets_C.where(mine_C, 0)


def _softmax(logits_CV: Tensor, local_targets_C: Tensor, group: dist.ProcessGroup) -> _Softmax:
    """Overwrites the logits. With z = logit - max and Z = sum exp(z), p = exp(z) / Z:

    log p(y) = z_y - log Z, and the entropy is log Z - sum p z.
    """
    max_C = logits_CV.amax(dim=1)
    _reduce(max_C, dist.ReduceOp.MAX, group)
    shifted_CV = logits_CV.sub_(max_C[:, None])
    mine_C, index_C = _own(local_targets_C, logits_CV.shape[1])
    target_C = shifted_CV.gather(1, index_C[:, None]).squeeze(1) * mine_C
    exp_CV = shifted_CV.exp()
    sums_3C = torch.stack([exp_CV.sum(dim=1), torch.linalg.vecdot(exp_CV, shifted_CV), target_C])
    _reduce(sums_3C, dist.ReduceOp.SUM, group)
    normaliser_C, weighted_C, target_C = sums_3C
    log_C = normaliser_C.log()
    return _Softmax(
        logprobs_C=target_C - log_C,
        entropy_C=log_C - weighted_C / normaliser_C,
        log_normaliser_C=log_C + max_C,
        exp_CV=exp_CV,
        normaliser_C=normaliser_C,
    )


def _reduce(tensor: Tensor, op: Any, group: dist.ProcessGroup) -> None:
    if group.size() > 1:
        dist.all_reduce(tensor, op=op, group=group)
