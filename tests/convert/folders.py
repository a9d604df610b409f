"""Small Hugging Face folders on disk, whole or in shards, and what is in a folder."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from apriel_mcore.bridge import shape as model_shape
from apriel_mcore.bridge.names import hf_tensors

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 16,
    "intermediate_size": 96,
    "vocab_size": 101,  # odd: padded under tensor parallelism
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "max_position_embeddings": 512,
    "hidden_act": "silu",
}


def write_folder(
    folder: Path,
    *,
    tied: bool = True,
    dtype: torch.dtype = torch.bfloat16,
    num_files: int = 1,
    llava: bool = False,
    **changes: Any,
) -> dict[str, Tensor]:
    """A model with random weights, in `num_files` files; its decoder's tensors by plain name."""
    folder.mkdir(parents=True)
    config = CONFIG | changes | {"tie_word_embeddings": tied, "dtype": str(dtype).removeprefix("torch.")}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text("{}")
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    generator = torch.Generator().manual_seed(7)
    tensors = {
        name: torch.randn(sizes, generator=generator).mul_(0.1).to(dtype)
        for name, sizes in hf_tensors(model_shape.read(folder)).items()
    }
    stored = dict(tensors)
    if llava:
        wrapped = {"model_type": "llava", "text_config": config, "tie_word_embeddings": tied}
        (folder / "config.json").write_text(json.dumps(wrapped))
        stored = {f"language_model.{name}": tensor for name, tensor in tensors.items()}
        stored |= {"vision_tower.patch.weight": torch.ones(3), "multi_modal_projector.a.bias": torch.ones(2)}
    write_tensors(folder, stored, num_files)
    return tensors


def change_config(folder: Path, **changes: Any) -> None:
    """Other values in a folder's config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def write_tensors(folder: Path, tensors: dict[str, Tensor], num_files: int) -> None:
    """The weight files of a folder, with an index if there are several."""
    if num_files == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    placed = {}
    for number in range(num_files):
        file = f"model-{number + 1:05}-of-{num_files:05}.safetensors"
        part = dict(list(tensors.items())[number::num_files])
        save_file(part, folder / file, metadata={"format": "pt"})
        placed |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": placed}))


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Every tensor of every weight file."""
    tensors: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(path)
    return tensors


def assert_equal(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    """Same names, dtypes and bits."""
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name
