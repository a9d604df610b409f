"""Published models as their config.json describes them, for tests that need numbers of real size."""

import json
from pathlib import Path
from typing import Any

from apriel_mcore.bridge.shape import ModelShape

RECIPES = Path(__file__).parents[1] / "recipes"
_LLAMA = {"model_type": "llama", "tie_word_embeddings": False, "max_position_embeddings": 131072}

CONFIGS: dict[str, dict[str, Any]] = {
    "apriel_15b": json.loads((RECIPES / "shapes" / "apriel_15b" / "config.json").read_text()),
    "smollm2_135m": _LLAMA
    | {
        "tie_word_embeddings": True,
        "max_position_embeddings": 8192,
        "hidden_size": 576,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "intermediate_size": 1536,
        "vocab_size": 49152,
    },
    "llama3_8b": _LLAMA
    | {
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": 14336,
        "vocab_size": 128256,
    },
    "llama3_70b": _LLAMA
    | {
        "hidden_size": 8192,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "intermediate_size": 28672,
        "vocab_size": 128256,
    },
    "qwen2_7b": {
        "model_type": "qwen2",
        "hidden_size": 3584,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "intermediate_size": 18944,
        "vocab_size": 152064,
    },
    "qwen3_14b": {
        "model_type": "qwen3",
        "hidden_size": 5120,
        "num_hidden_layers": 40,
        "num_attention_heads": 40,
        "num_key_value_heads": 8,
        "intermediate_size": 17408,
        "vocab_size": 151936,
    },
    "llama2_13b": _LLAMA
    | {
        "hidden_size": 5120,
        "num_hidden_layers": 40,
        "num_attention_heads": 40,
        "num_key_value_heads": 40,
        "intermediate_size": 13824,
        "vocab_size": 32000,
    },
}
SHAPES = {name: ModelShape.from_hf(config, where=name) for name, config in CONFIGS.items()}


def config_only(folder: Path, name: str) -> Path:
    """A model folder with the config.json and nothing else."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIGS[name]))
    return folder
