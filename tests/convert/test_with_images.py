"""A decoder goes back between its vision tower and projector, which keep every bit."""

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch
from safetensors.torch import load_file, save_file

from apriel_mcore.convert import with_images
from apriel_mcore.errors import InputError
from tests.convert.conftest import Convert
from tests.convert.folders import assert_equal, change_config, read_tensors, write_folder, write_tensors

DOWN = "model.layers.2.mlp.down_proj.weight"


@pytest.fixture
def like(tmp_path: Path) -> Path:
    write_folder(tmp_path / "like", llava=True, num_files=3)
    (tmp_path / "like" / "preprocessor_config.json").write_text('{"size": 3}')
    return tmp_path / "like"


def train(tmp_path: Path, like: Path, convert: Convert) -> Path:
    """Out of the whole model, changed, and back as a decoder with a report."""
    convert.to_mcore(like, tmp_path / "mcore")
    convert.to_hf(tmp_path / "mcore", tmp_path / "plain")
    tensors = {name: weight * 2 for name, weight in read_tensors(tmp_path / "plain").items()}
    save_file(tensors, tmp_path / "plain" / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "plain" / "conversion.json").unlink()
    convert.to_mcore(tmp_path / "plain", tmp_path / "trained_mcore")
    convert.to_hf(tmp_path / "trained_mcore", tmp_path / "trained")
    return tmp_path / "trained"


@pytest.mark.parametrize("prefix", ["language_model.", "model.language_model."])
def test_decoder_from_one_and_images_from_the_other(
    convert: Convert, tmp_path: Path, like: Path, prefix: str
) -> None:
    if prefix == "model.language_model.":
        rename(like)
    trained = train(tmp_path, like, convert)
    report = with_images.convert(trained, like, tmp_path / "whole")
    before, after = read_tensors(like), read_tensors(tmp_path / "whole")
    wanted = {
        name: weight if "vision" in name or "projector" in name else weight * 2
        for name, weight in before.items()
    }
    assert_equal(after, wanted)
    assert report.num_tensors == len(before)
    for path in like.glob("*.json"):
        assert (tmp_path / "whole" / path.name).read_bytes() == path.read_bytes()
    for path in like.glob("*.safetensors"):
        assert load_file(tmp_path / "whole" / path.name).keys() == load_file(path).keys()
    # It is a folder that converts like any other, and a second call finds its work done.
    convert.to_mcore(tmp_path / "whole", tmp_path / "again")
    again = with_images.convert(trained, like, tmp_path / "whole")
    assert again == msgspec.structs.replace(report, found_finished=True)


def test_a_tied_head_written_out_follows_the_embedding(convert: Convert, tmp_path: Path, like: Path) -> None:
    tensors = read_tensors(like)
    (like / "model.safetensors.index.json").unlink()
    embedding = tensors["language_model.model.embed_tokens.weight"]
    write_tensors(like, tensors | {"language_model.lm_head.weight": embedding.clone()}, 1)
    with_images.convert(train(tmp_path, like, convert), like, tmp_path / "whole")
    after = read_tensors(tmp_path / "whole")
    assert torch.equal(after["language_model.lm_head.weight"], embedding * 2)
    assert torch.equal(after["language_model.model.embed_tokens.weight"], embedding * 2)


def rename(like: Path) -> None:
    """To the names of newer transformers."""

    def new(name: str) -> str:
        return name.replace("language_model.model.", "model.language_model.")

    for path in like.glob("*.safetensors"):
        save_file({new(name): weight for name, weight in load_file(path).items()}, path)
    index = json.loads((like / "model.safetensors.index.json").read_text())
    index["weight_map"] = {new(name): file for name, file in index["weight_map"].items()}
    (like / "model.safetensors.index.json").write_text(json.dumps(index))


def flip(trained: Path) -> None:
    path = trained / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def widen(trained: Path) -> None:
    path = trained / "model.safetensors"
    save_file({name: weight.float() for name, weight in load_file(path).items()}, path)


def other_eps(trained: Path) -> None:
    change_config(trained, rms_norm_eps=1e-6)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (flip, "is not what its conversion.json says"),
        (widen, "is float32, in .* bfloat16; convert the checkpoint again"),
        (other_eps, "not the same decoder: norm_eps 1e-06 and 1e-05"),
    ],
)
def test_what_does_not_belong_together_is_refused(
    convert: Convert, tmp_path: Path, like: Path, change: Callable[[Path], None], words: str
) -> None:
    trained = train(tmp_path, like, convert)
    change(trained)
    with pytest.raises(InputError, match=words):
        with_images.convert(trained, like, tmp_path / "whole")
    assert not list(tmp_path.glob("whole*"))


def test_another_image_processor_is_another_result(convert: Convert, tmp_path: Path, like: Path) -> None:
    trained = train(tmp_path, like, convert)
    with_images.convert(trained, like, tmp_path / "whole")
    (like / "preprocessor_config.json").write_text('{"size": 4}')
    with pytest.raises(InputError, match="whole: exists and is not the result of this conversion"):
        with_images.convert(trained, like, tmp_path / "whole")


@pytest.mark.parametrize("side", ["like", "plain"])
@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_values_that_are_not_finite_are_refused_by_name(
    convert: Convert, tmp_path: Path, side: str, value: float, like: Path
) -> None:
    """In the decoder, which carries no digests here, and in the tower."""
    convert.to_mcore(like, tmp_path / "mcore")
    convert.to_hf(tmp_path / "mcore", tmp_path / "plain")
    (tmp_path / "plain" / "conversion.json").unlink()
    name = "vision_tower.patch.weight" if side == "like" else DOWN
    path = next(path for path in (tmp_path / side).glob("*.safetensors") if name in load_file(path))
    tensors = load_file(path)
    tensors[name].view(-1)[-1] = value
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(InputError, match=f"{name} holds NaN or infinite values"):
        with_images.convert(tmp_path / "plain", like, tmp_path / "whole")
    assert not list(tmp_path.glob("whole*"))


def test_a_folder_without_images_is_refused(convert: Convert, tmp_path: Path) -> None:
    write_folder(tmp_path / "plain")
    with pytest.raises(InputError, match="holds a decoder alone"):
        with_images.convert(tmp_path / "plain", tmp_path / "plain", tmp_path / "whole")


@pytest.mark.parametrize("damage", ["", "dawn"])
def test_an_interrupted_call_goes_on(
    convert: Convert, tmp_path: Path, like: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    """A finished file is kept; one whose header has a letter wrong since is written again."""
    trained = train(tmp_path, like, convert)
    put, count = with_images.GrowingFile.put, 0

    def stop_later(file: with_images.GrowingFile, start: int, tensor: torch.Tensor) -> None:
        nonlocal count
        count += 1
        if count > 20:
            raise KeyboardInterrupt
        put(file, start, tensor)

    monkeypatch.setattr(with_images.GrowingFile, "put", stop_later)
    with pytest.raises(KeyboardInterrupt):
        with_images.convert(trained, like, tmp_path / "whole")
    assert not (tmp_path / "whole").exists()
    monkeypatch.undo()
    if damage:
        path = next((tmp_path / "whole.partial").glob("model-00001-*.safetensors"))
        path.write_bytes(path.read_bytes().replace(b"mlp.down", f"mlp.{damage}".encode(), 1))
    report = with_images.convert(trained, like, tmp_path / "whole")
    assert report.parts_taken_over == (0 if damage else 1)
    assert read_tensors(tmp_path / "whole").keys() == read_tensors(like).keys()
