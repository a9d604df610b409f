"""Small models for the bridge's tests."""

from collections.abc import Callable

import pytest

from apriel_mcore.bridge.shape import ModelShape

MakeShape = Callable[..., ModelShape]


def make_shape(
    *,
    layers: int = 4,
    groups: int = 4,
    heads_per_group: int = 2,
    head_dim: int = 2,
    hidden: int = 6,
    ffn: int = 8,
    vocab: int = 11,
    tied: bool = False,
    qkv_bias: bool = False,
    qk_norm: bool = False,
) -> ModelShape:
    """A model whose sizes are all different, so that a mix-up cannot fit by chance."""
    return ModelShape(
        family="llama",
        hidden_size=hidden,
        num_layers=layers,
        num_heads=groups * heads_per_group,
        num_kv_heads=groups,
        head_dim=head_dim,
        ffn_size=ffn,
        vocab_size=vocab,
        tied=tied,
        rope_theta=1e4,
        norm_eps=1e-5,
        max_positions=64,
        qkv_bias=qkv_bias,
        qk_norm=qk_norm,
    )


@pytest.fixture(scope="session")
def small_shape() -> MakeShape:
    """Builds a small ModelShape; keyword arguments change its sizes."""
    return make_shape
