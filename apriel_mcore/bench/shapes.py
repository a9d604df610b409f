"""Which models are measured? Shapes of published ones, and how transformers describes a Llama of a shape."""

from typing import Any

from apriel_mcore.bridge.shape import ModelShape

SHAPES = {
    "135m": ModelShape(
        family="llama",
        hidden_size=576,
        num_layers=30,
        num_heads=12,
        num_kv_heads=4,
        head_dim=48,
        ffn_size=1536,
        vocab_size=49152,
        tied=True,
        rope_theta=1e5,
        norm_eps=1e-5,
        max_positions=8192,
    ),
    "1b": ModelShape(
        family="llama",
        hidden_size=2048,
        num_layers=22,
        num_heads=32,
        num_kv_heads=4,
        head_dim=64,
        ffn_size=5632,
        vocab_size=32000,
        tied=False,
        rope_theta=1e4,
        norm_eps=1e-5,
        max_positions=2048,
    ),
    "15b": ModelShape(
        family="llama",
        hidden_size=5120,
        num_layers=48,
        num_heads=32,
        num_kv_heads=8,
        head_dim=128,
        ffn_size=14336,
        vocab_size=131072,
        tied=False,
        rope_theta=1e6,
        norm_eps=1e-5,
        max_positions=131072,
    ),
}
"""SmolLM2-135M, but with heads that 2 and 4 ranks can share; TinyLlama-1.1B; Apriel-1.5-15b's decoder."""


def hf_settings(shape: ModelShape) -> dict[str, Any]:
    """Keyword arguments of transformers' LlamaConfig, which are also keys of config.json."""
    return {
        "hidden_size": shape.hidden_size,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": shape.num_kv_heads,
        "head_dim": shape.head_dim,
        "intermediate_size": shape.ffn_size,
        "vocab_size": shape.vocab_size,
        "tie_word_embeddings": shape.tied,
        "rope_theta": shape.rope_theta,
        "rms_norm_eps": shape.norm_eps,
        "max_position_embeddings": shape.max_positions,
    }
