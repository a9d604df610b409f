"""At which angle per token does each pair of a head's channels turn? Rotary frequencies, scaled or not.

Megatron computes one kind of scaling, with constants of its own for the original context and the bounds
of Llama 3; here all kinds of bridge/rope.py are computed from the config's numbers, in the order of
operations of transformers, so that both sides hold the same float32 numbers.
"""

import math

import torch
from torch import Tensor

from apriel_mcore.bridge.rope import Linear, Llama3, RopeScaling, Unscaled


def inverse_frequencies(head_dim: int, theta: float, scaling: RopeScaling) -> Tensor:
    """Radians per token, float32 [head_dim / 2]: theta^(-2i / head_dim), then scaled."""
    frequencies = 1.0 / (theta ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim))
    match scaling:
        case Unscaled():
            return frequencies
        case Linear():
            return frequencies / scaling.factor
        case Llama3():
            return _llama3(frequencies, scaling)


def _llama3(frequencies: Tensor, scaling: Llama3) -> Tensor:
    """With n turns within the original context, f becomes (1 - s) f / factor + s f, where s goes from 0
    at n = low_freq_factor to 1 at n = high_freq_factor."""
    wavelengths = 2 * math.pi / frequencies
    turns = scaling.original_max_position_embeddings / wavelengths
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return (1 - kept) * frequencies / scaling.factor + kept * frequencies
