"""Which files beside the weights make a Hugging Face folder usable, and which folder do they come from?

A checkpoint made by convert carries them in `hf/`; one of training names its model in the run's recipe.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from blake3 import blake3

from apriel_mcore.bridge import shape as model_shape
from apriel_mcore.bridge.families import llava
from apriel_mcore.bridge.tensorfile import Dtype
from apriel_mcore.config.load import load
from apriel_mcore.data.model_files import model_folder
from apriel_mcore.errors import InputError

CARRIED = "hf"
_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)


def described(model: Path) -> dict[str, str]:
    """What config, generation config and tokenizer of a model folder put into a job: what they mean to us,
    and which bytes they are."""
    return {
        "shape": msgspec.json.encode(model_shape.read(model)).decode(),
        "companions": digest_of(_present(model)),
    }


def digest_of(files: Sequence[Path]) -> str:
    """64 hex digits that change with a name or a byte."""
    found = blake3()
    for path in files:
        found.update(f"{path.name} {blake3(path.read_bytes()).hexdigest()}\n".encode())
    return found.hexdigest()


def copy_all(source: Path, target: Path) -> None:
    """Config, generation config and tokenizer of one folder into another, as they are."""
    target.mkdir(parents=True, exist_ok=True)
    for path in _present(source):
        shutil.copyfile(path, target / path.name)


def copy_for_decoder(source: Path, target: Path, dtype: Dtype) -> None:
    """The same, for weights under plain names in `dtype`: of a config with several modalities only the text
    decoder's part, and the dtype that transformers will load."""
    copy_all(source, target)
    path = target / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    decoder = _decoder(config)
    if decoder is not config or _dtype(decoder) != dtype:
        decoder = {key: value for key, value in decoder.items() if key != "torch_dtype"} | {"dtype": dtype}
        path.write_text(json.dumps(decoder, indent=2) + "\n", encoding="utf-8")


def dtypes_of(model: Path) -> set[str]:
    """What a readable config.json calls the weights' dtype: the whole's and the text decoder's, if named."""
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    return {
        str(_dtype(level)).removeprefix("torch.") for level in (config, _decoder(config)) if _dtype(level)
    }


def model_of(checkpoint: Path, like: Path | None) -> Path:
    """The model folder a checkpoint came from: `like` if given, else what it carries, else what its run's
    recipe names; InputError when none of them exists."""
    if like is not None:
        return like
    if (checkpoint / CARRIED / "config.json").is_file():
        return checkpoint / CARRIED
    recipe = checkpoint.absolute().parent.parent / "resolved.toml"
    if recipe.is_file():
        return model_folder(load(recipe).model)
    raise InputError(
        f"{checkpoint}: does not say which model it is; give its Hugging Face folder with --like FOLDER"
    )


def _present(folder: Path) -> list[Path]:
    return [folder / name for name in _FILES if (folder / name).is_file()]


def _decoder(config: dict[str, Any]) -> dict[str, Any]:
    """The text decoder's config, with what it inherits from the whole, as bridge/families/ reads it."""
    if config.get("model_type") != llava.MODEL_TYPE:
        return config
    decoder = llava.decoder_of(config)
    if not decoder.get("architectures"):
        decoder["architectures"] = [f"{decoder['model_type'].capitalize()}ForCausalLM"]
    return decoder


def _dtype(config: dict[str, Any]) -> object:
    return config.get("dtype", config.get("torch_dtype"))
