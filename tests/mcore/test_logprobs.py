"""The chunked head equals torch's log_softmax, forward and backward, whatever the chunks, the temperature
and the split of the vocabulary; and its memory does not grow with the row."""

import os
from pathlib import Path

import pytest
import torch

from apriel_mcore.bench.ranks import run_ranks

pytestmark = pytest.mark.engine

NUM_TOKENS, HIDDEN, VOCAB = 23, 12, 51


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    hidden_NH = torch.randn(NUM_TOKENS, HIDDEN, generator=generator)
    weight_VH = torch.randn(VOCAB, HIDDEN, generator=generator)
    targets_N = torch.randint(VOCAB, (NUM_TOKENS,), generator=generator)
    return hidden_NH, weight_VH, targets_N, torch.randn(NUM_TOKENS, generator=generator)


def reference(temperature_N: torch.Tensor) -> list[torch.Tensor]:
    hidden_NH, weight_VH, targets_N, pull_N = inputs()
    for leaf in (hidden_NH, weight_VH):
        leaf.requires_grad_()
    logprobs_NV = torch.log_softmax(hidden_NH @ weight_VH.T / temperature_N[:, None], dim=1)
    chosen_N = logprobs_NV.gather(1, targets_N[:, None]).squeeze(1)
    (chosen_N * pull_N).sum().backward()
    entropy_N = -(logprobs_NV.exp() * logprobs_NV).sum(dim=1)
    assert hidden_NH.grad is not None and weight_VH.grad is not None
    return [chosen_N.detach(), entropy_N.detach(), hidden_NH.grad, weight_VH.grad]


def chunked(temperature_N: torch.Tensor, chunk_tokens: int, keep: bool) -> list[torch.Tensor]:
    """On each of the tensor ranks: its slice of the vocabulary, uneven so that the padding is cut off."""
    import torch.distributed as dist

    from apriel_mcore.mcore import logprobs, parallel
    from tests.mcore.llama import train_section

    world = int(os.environ["WORLD_SIZE"])
    ranks = parallel.start(train_section(tensor=world), seed=0, timeout_s=60)
    width = -(-VOCAB // world)
    logprobs.CHUNK_BYTES = 4 * width * chunk_tokens
    logprobs.KEEP_BYTES = 2**30 if keep else 0
    hidden_NH, weight_VH, targets_N, pull_N = inputs()
    own_VH = weight_VH[ranks.tensor * width : (ranks.tensor + 1) * width].clone().requires_grad_()
    hidden_NH.requires_grad_()
    scores = logprobs.token_scores(
        hidden_NH,
        own_VH,
        targets_N,
        first_token=ranks.tensor * width,
        temperature_N=temperature_N,
        group=parallel.group("tensor"),
    )
    (scores.logprobs_N * pull_N).sum().backward()
    assert hidden_NH.grad is not None and own_VH.grad is not None
    assert not scores.entropy_N.requires_grad
    dist.all_reduce(hidden_NH.grad)  # Megatron's region does this in the model
    return [scores.logprobs_N.detach(), scores.entropy_N, hidden_NH.grad, own_VH.grad]


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize(("chunk_tokens", "keep"), [(1000, True), (7, True), (7, False), (1, False)])
@pytest.mark.parametrize("temperatures", [(1.0, 1.0), (0.7, 1.2)])
def test_equals_log_softmax(
    world: int, chunk_tokens: int, keep: bool, temperatures: tuple[float, float], tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    temperature_N = torch.tensor(temperatures).repeat(NUM_TOKENS)[:NUM_TOKENS]
    logprobs_N, entropy_N, grad_hidden_NH, grad_weight_VH = reference(temperature_N)
    found_R = run_ranks(world, chunked, temperature_N, chunk_tokens, keep, folder=tmp_path)
    for found in found_R:
        torch.testing.assert_close(found[0], logprobs_N)
        torch.testing.assert_close(found[1], entropy_N)
        torch.testing.assert_close(found[2], grad_hidden_NH)
    torch.testing.assert_close(torch.cat([found[3] for found in found_R]), grad_weight_VH)


def no_tokens() -> None:
    from apriel_mcore.mcore import logprobs, parallel
    from tests.mcore.llama import train_section

    parallel.start(train_section(), seed=0, timeout_s=60)
    hidden_NH = torch.randn(0, HIDDEN, requires_grad=True)
    weight_VH = torch.randn(VOCAB, HIDDEN, requires_grad=True)
    scores = logprobs.token_scores(
        hidden_NH,
        weight_VH,
        torch.zeros(0, dtype=torch.int64),
        first_token=0,
        temperature_N=torch.zeros(0),
        group=parallel.group("tensor"),
    )
    scores.logprobs_N.sum().backward()
    assert weight_VH.grad is not None and not weight_VH.grad.any()


def test_a_row_without_responses_runs(tmp_path: Path) -> None:
    run_ranks(1, no_tokens, folder=tmp_path)
