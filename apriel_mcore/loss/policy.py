"""How does one packed row pull on the policy? The policy losses, over response tokens only.

    logprobs_T (gradient), behaviour_T, sample_T, advantages_N --kind--> objective_T --sum--> -loss

Shape suffixes: _T response tokens of all samples of the row, _N samples of the row. x is the log-ratio
log pi_new - log pi_old of a token, where pi_old is the policy that the server really sampled from.

Every kind weighs its terms with constants of the whole optimizer step, so the losses of all rows, over
micro-batches and data ranks, add up to the loss of the step however the samples were packed. A sample
must lie in one row with all its response tokens: under context parallelism they are gathered first.

Everything is 1-D and short, so it is computed in float64: a sequence ratio that is clipped at 1.003
must not depend on the order of a float32 sum.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from apriel_mcore.config.schema import Loss


class RowSums(NamedTuple):
    """Detached 0-d float64 sums over a row: add them over rows and ranks, then divide.

    The tuple can be stacked as it is into one vector for one all-reduce.
    """

    tokens: Tensor
    sequences: Tensor
    clipped_tokens: Tensor
    """Tokens whose ratio the clip changed; for gspo all tokens of the sequences it changed."""
    abs_log_ratio: Tensor
    """sum |x|."""
    k3: Tensor
    """sum exp(x) - 1 - x: per token an estimate of KL(server || trainer), never negative."""


class RowLoss(NamedTuple):
    """What one row contributes to the step."""

    loss: Tensor
    """Scalar with a graph, in the dtype of the log-probs, already divided by the step's constant."""
    sums: RowSums
    max_abs_log_ratio: Tensor
    """Detached 0-d float64; 0 for an empty row."""


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A row in float64, with the step's constants."""

    logprobs_T: Tensor
    log_ratio_T: Tensor
    sample_T: Tensor
    advantages_N: Tensor
    num_rollouts: int
    num_tokens: int

    @property
    def ratio_T(self) -> Tensor:
        return self.log_ratio_T.exp()

    @property
    def advantage_T(self) -> Tensor:
        return self.advantages_N[self.sample_T]

    @property
    def lengths_N(self) -> Tensor:
        """|y| of each sample, at least 1: a sample without tokens has no terms to divide."""
        return self.sum_by_sample(torch.ones_like(self.log_ratio_T)).clamp(min=1)

    def sum_by_sample(self, values_T: Tensor) -> Tensor:
        """Sums over the tokens of each sample."""
        return torch.zeros_like(self.advantages_N).index_add(0, self.sample_T, values_T)


class _Terms(NamedTuple):
    """What a kind makes of a row; the loss is minus the sum of the objective."""

    objective_T: Tensor
    clipped_T: Tensor
    """Bool: the ratio in this token's term was replaced by a clip bound."""


def _pessimistic(ratio: Tensor, advantage: Tensor, settings: Loss) -> tuple[Tensor, Tensor]:
    """PPO's min( ratio A, clip(ratio) A ), and where the clip decided (arXiv 1707.06347)."""
    unclipped = ratio * advantage
    clipped = ratio.clamp(1 - settings.clip_low, 1 + settings.clip_high) * advantage
    return torch.minimum(unclipped, clipped), clipped < unclipped


def _gspo(row: _Row, settings: Loss) -> _Terms:
    """Sequence ratio, sequence clip (arXiv 2507.18071), weighted by length or not.

    A sequence's weight is spread over its tokens: 1/Bs per token amounts to |y|/Bs.
    """
    ratio_N = (row.sum_by_sample(row.log_ratio_T) / row.lengths_N).exp()
    objective_N, clipped_N = _pessimistic(ratio_N, row.advantages_N, settings)
    if settings.length_weight == "tokens":
        weight_N = torch.ones_like(row.advantages_N) / row.num_rollouts
    else:
        mean_length = row.num_tokens / row.num_rollouts
        weight_N = mean_length / (row.num_rollouts * row.lengths_N)
    return _Terms((weight_N * objective_N)[row.sample_T], clipped_N[row.sample_T])


def _ppo_clip(row: _Row, settings: Loss) -> _Terms:
    """Token ratio, token clip; every token counts 1/Bs."""
    objective_T, clipped_T = _pessimistic(row.ratio_T, row.advantage_T, settings)
    return _Terms(objective_T / row.num_rollouts, clipped_T)


def _reinforce_is(row: _Row, settings: Loss) -> _Terms:
    """REINFORCE with an importance weight that is truncated from above and has no gradient."""
    ratio_T = row.ratio_T.detach()
    bound = 1 + settings.clip_high
    objective_T = ratio_T.clamp(max=bound) * row.advantage_T * row.logprobs_T
    return _Terms(objective_T / row.num_rollouts, ratio_T > bound)


def _grpo_token_mean(row: _Row, settings: Loss) -> _Terms:
    """Token ratio, token clip; mean over all tokens of the step (DAPO, arXiv 2503.14476)."""
    objective_T, clipped_T = _pessimistic(row.ratio_T, row.advantage_T, settings)
    return _Terms(objective_T / row.num_tokens, clipped_T)


def _grpo_seq_mean(row: _Row, settings: Loss) -> _Terms:
    """Token ratio, token clip; mean over tokens, then over rollouts (GRPO, arXiv 2402.03300)."""
    objective_T, clipped_T = _pessimistic(row.ratio_T, row.advantage_T, settings)
    return _Terms(objective_T / (row.num_rollouts * row.lengths_N[row.sample_T]), clipped_T)


def _cispo(row: _Row, settings: Loss) -> _Terms:
    """REINFORCE with an importance weight clipped on both sides (MiniMax-M1, arXiv 2506.13585)."""
    ratio_T = row.ratio_T.detach()
    weight_T = ratio_T.clamp(1 - settings.clip_low, 1 + settings.clip_high)
    return _Terms(weight_T * row.advantage_T * row.logprobs_T / row.num_tokens, weight_T != ratio_T)


KINDS: dict[str, Callable[[_Row, Loss], _Terms]] = {
    "gspo": _gspo,
    "ppo_clip": _ppo_clip,
    "reinforce_is": _reinforce_is,
    "grpo_token_mean": _grpo_token_mean,
    "grpo_seq_mean": _grpo_seq_mean,
    "cispo": _cispo,
}


def policy_loss(
    logprobs_T: Tensor,
    *,
    behaviour_T: Tensor,
    sample_T: Tensor,
    advantages_N: Tensor,
    num_rollouts: int,
    num_tokens: int,
    settings: Loss,
) -> RowLoss:
    """Loss and metric sums of one packed row; no synchronisation with the device.

    Args:
        logprobs_T: log pi_new of each response token, float32 (or float64), with gradient, nats.
        behaviour_T: log pi_old of the same tokens, as the server reported it.
        sample_T: int64, the sample in this row that each token belongs to, 0 .. N-1, in any order.
        advantages_N: advantage of each sample of the row.
        num_rollouts: Bs, nominal rollouts of the optimizer step (Batch.num_rollouts).
        num_tokens: T, response tokens of the optimizer step (Batch.num_response_tokens).
        settings: kind, clip bounds, length weight.

    An empty row (no tokens, no samples) has loss 0 and still runs backward.
    """
    assert logprobs_T.shape == behaviour_T.shape == sample_T.shape, "one entry per response token"
    logprobs64_T = logprobs_T.double()
    row = _Row(
        logprobs_T=logprobs64_T,
        log_ratio_T=logprobs64_T - behaviour_T.double(),
        sample_T=sample_T,
        advantages_N=advantages_N.double(),
        num_rollouts=num_rollouts,
        num_tokens=num_tokens,
    )
    terms = KINDS[settings.kind](row, settings)
    x_T = row.log_ratio_T.detach()
    return RowLoss(
        loss=-terms.objective_T.sum().to(logprobs_T.dtype),
        sums=_sums(x_T, terms.clipped_T, num_sequences=advantages_N.numel()),
        max_abs_log_ratio=x_T.abs().max() if x_T.numel() else x_T.new_zeros(()),
    )


def _sums(x_T: Tensor, clipped_T: Tensor, *, num_sequences: int) -> RowSums:
    return RowSums(
        tokens=x_T.new_full((), x_T.numel()),
        sequences=x_T.new_full((), num_sequences),
        clipped_tokens=clipped_T.sum(dtype=torch.float64),
        abs_log_ratio=x_T.abs().sum(),
        k3=(torch.expm1(x_T) - x_T).sum(),
    )
