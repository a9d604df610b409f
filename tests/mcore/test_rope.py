"""The frequencies are those of transformers, bit for bit."""

from typing import Any

import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from apriel_mcore.bridge.shape import ModelShape
from apriel_mcore.mcore.rope import inverse_frequencies

LLAMA31 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA31 |= {"original_max_position_embeddings": 8192}
ROPES: dict[str, dict[str, Any]] = {
    "unscaled": {"rope_type": "default"},
    "apriel": {"rope_type": "default", "rope_theta": 1e9},
    "linear": {"rope_type": "linear", "factor": 3.0},
    "llama3.1": LLAMA31 | {"rope_theta": 500_000.0},
    "llama3.2": LLAMA31 | {"rope_theta": 500_000.0, "factor": 32.0},
    "other_bounds": LLAMA31 | {"low_freq_factor": 2.5, "high_freq_factor": 7.0, "factor": 3.3},
    "short_context": LLAMA31 | {"original_max_position_embeddings": 16},
}


@pytest.mark.parametrize("rope", ROPES.values(), ids=ROPES.keys())
@pytest.mark.parametrize("head_dim", [16, 64, 128])
def test_frequencies_are_those_of_transformers(rope: dict[str, Any], head_dim: int) -> None:
    config = LlamaConfig(head_dim=head_dim, rope_parameters=dict(rope))
    shape = ModelShape.from_hf(config.to_dict(), where="config.json")
    found = inverse_frequencies(shape.head_dim, shape.rope_theta, shape.rope_scaling)
    assert torch.equal(found, LlamaRotaryEmbedding(config).inv_freq)
