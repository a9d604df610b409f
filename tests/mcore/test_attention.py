"""A family's answers in one product: each as if it stood alone behind the prompt."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from apriel_mcore.mcore.attention import PackedCausalAttention

HEADS, GROUPS, SIZE = 4, 2, 8


@pytest.mark.parametrize(
    "lengths, prompts",
    [
        ((3, 2, 0, 4, 3), (None, 0, 0, 0, None)),
        ((3, 0, 0, 2), (None, 0, 0, None)),  # nobody said anything
        ((2, 2, 1, 1, 2, 1), (None, 0, 0, None, 3, 3)),
        ((3, 4), (None, 0)),
    ],
)
def test_answers_of_any_lengths_see_their_prompt_and_themselves(
    lengths: tuple[int, ...], prompts: tuple[int | None, ...]
) -> None:
    torch.manual_seed(0)
    total = sum(lengths)
    query, key, value = (torch.randn(total, heads, SIZE) for heads in (HEADS, GROUPS, GROUPS))
    found = _attention()(query, key, value, None, packed_seq_params=_packing(lengths, prompts))
    split = [tensor.split(list(lengths)) for tensor in (query, key, value)]
    expected = []
    for number, prompt in enumerate(prompts):
        texts = [[part[number]] if prompt is None else [part[prompt], part[number]] for part in split]
        alone = _alone(*(torch.cat(text) for text in texts))
        expected.append(alone[len(alone) - lengths[number] :])
    torch.testing.assert_close(found, torch.cat(expected).reshape(total, 1, -1))


def _alone(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Causal softmax(q k^T / sqrt(d)) v in plain sums."""
    key, value = (tensor.repeat_interleave(HEADS // GROUPS, dim=1) for tensor in (key, value))
    scores = torch.einsum("qhd,khd->hqk", query, key) / SIZE**0.5
    hidden = torch.ones(len(query), len(query), dtype=torch.bool).triu(1)
    return torch.einsum("hqk,khd->qhd", scores.masked_fill(hidden, float("-inf")).softmax(-1), value)


def _attention() -> PackedCausalAttention:
    groups = SimpleNamespace(cp=SimpleNamespace(size=lambda: 1))
    return PackedCausalAttention(None, 1, None, "self", pg_collection=groups)  # type: ignore[arg-type]


def _packing(lengths: tuple[int, ...], prompts: tuple[int | None, ...]) -> SimpleNamespace:
    bounds = torch.tensor([0, *lengths]).cumsum(0)
    return SimpleNamespace(cu_seqlens_q=bounds, prompts=prompts)
