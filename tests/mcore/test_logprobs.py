"""The chunked head equals log_softmax of full logits in float64, forward and backward, whatever the chunks,
the temperature and the split of the vocabulary; and it never holds more logits than a chunk's."""

import os
from pathlib import Path
from typing import Any

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
    """Full logits, in float64."""
    hidden_NH, weight_VH, targets_N, pull_N = inputs()
    hidden_NH, weight_VH = hidden_NH.double(), weight_VH.double()
    for leaf in (hidden_NH, weight_VH):
        leaf.requires_grad_()
    logprobs_NV = torch.log_softmax(hidden_NH @ weight_VH.T / temperature_N[:, None], dim=1)
    chosen_N = logprobs_NV.gather(1, targets_N[:, None]).squeeze(1)
    (chosen_N * pull_N).sum().backward()
    entropy_N = -(logprobs_NV.exp() * logprobs_NV).sum(dim=1)
    assert hidden_NH.grad is not None and weight_VH.grad is not None
    return [
        found.float() for found in (chosen_N.detach(), entropy_N.detach(), hidden_NH.grad, weight_VH.grad)
    ]


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


def largest_tensors(chunks: list[int]) -> list[int]:
    """For each number of tokens in a chunk, elements of the largest tensor that any operation of forward and
    backward gives back."""
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    from apriel_mcore.mcore import logprobs, parallel
    from tests.mcore.llama import train_section

    class Watch(TorchDispatchMode):
        largest = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            found = func(*args, **(kwargs or {}))
            sizes = [leaf.numel() for leaf in tree_leaves(found) if isinstance(leaf, torch.Tensor)]
            self.largest = max(self.largest, *sizes, 0)
            return found

    parallel.start(train_section(), seed=0, timeout_s=60)
    logprobs.KEEP_BYTES = 0
    hidden_NH = torch.randn(500, HIDDEN, requires_grad=True)
    weight_VH = torch.randn(VOCAB, HIDDEN, requires_grad=True)
    found = []
    for chunk_tokens in chunks:
        logprobs.CHUNK_BYTES = 4 * VOCAB * chunk_tokens
        with Watch() as watch:
            scores = logprobs.token_scores(
                hidden_NH,
                weight_VH,
                torch.arange(500) % VOCAB,
                first_token=0,
                temperature_N=torch.ones(500),
                group=parallel.group("tensor"),
            )
            scores.logprobs_N.sum().backward()
        found.append(watch.largest)
    return found


def test_no_operation_makes_more_logits_than_a_chunk_has(tmp_path: Path) -> None:
    # 200 tokens: three even chunks; 1000: all at once, which shows that it would be seen.
    (found,) = run_ranks(1, largest_tensors, [1, 200, 1000], folder=tmp_path)
    assert found == [500 * HIDDEN, 167 * VOCAB, 500 * VOCAB]


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
