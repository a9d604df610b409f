"""Whatever is wrong with the source is refused by name, and nothing is left behind."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.metadata import MetadataIndex

from apriel_mcore.bridge import shape as model_shape
from apriel_mcore.config.schema import Parallel
from apriel_mcore.convert import companions, to_mcore
from apriel_mcore.convert.boxes import cut_out
from apriel_mcore.convert.checkpoint_writer import CheckpointFile, CheckpointWriter
from apriel_mcore.convert.parameters import Cut, Parameter, model_parameters
from apriel_mcore.convert.scratch import Scratch
from apriel_mcore.errors import InputError
from tests.convert.conftest import Convert
from tests.convert.folders import assert_equal, read_tensors, write_folder, write_tensors

DOWN = "model.layers.2.mlp.down_proj.weight"
UP = "model.layers.1.mlp.up_proj.weight"
TENSORS = dict[str, Tensor]


def refused(tmp_path: Path, call: Callable[[Path], object], words: str) -> None:
    """`call(target)` raises InputError with `words`, and the target does not exist afterwards in any form."""
    target = tmp_path / "target"
    with pytest.raises(InputError, match=words):
        call(target)
    assert not list(tmp_path.glob("target*"))


# --- Hugging Face folders ---------------------------------------------------------------------------


def set_value(value: float) -> Callable[[TENSORS], None]:
    def change(tensors: TENSORS) -> None:
        tensors[DOWN][-1, -1] = value

    return change


def rename(tensors: TENSORS) -> None:
    tensors[DOWN.replace("down", "dawn")] = tensors.pop(DOWN)


def drop(tensors: TENSORS) -> None:
    del tensors[DOWN]


def add(tensors: TENSORS) -> None:
    tensors["model.layers.4.mlp.down_proj.weight"] = tensors[DOWN].clone()


def transpose(tensors: TENSORS) -> None:
    tensors[DOWN] = tensors[DOWN].T.contiguous()


def duplicate(tensors: TENSORS) -> None:
    tensors["language_model." + DOWN] = tensors[DOWN].clone()


def widen(tensors: TENSORS) -> None:
    tensors[DOWN] = tensors[DOWN].float()


def quantise(tensors: TENSORS) -> None:
    tensors[DOWN] = tensors[DOWN].to(torch.int8)


@pytest.mark.parametrize("num_files", [1, 3])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (set_value(float("nan")), f"{DOWN} holds NaN"),
        (set_value(float("inf")), f"{DOWN} holds NaN or inf"),
        (set_value(float("-inf")), f"{DOWN} holds NaN or inf"),
        (rename, r"left over model.layers.2.mlp.dawn_proj.weight; missing " + DOWN),
        (drop, f"missing {DOWN}"),
        (add, "left over model.layers.4.mlp.down_proj.weight"),
        (transpose, rf"{DOWN} is \(96, 64\), expected \(64, 96\)"),
        (duplicate, f"{DOWN}"),
        (widen, f"{DOWN} is float32, the others bfloat16"),
        (quantise, f"{DOWN} has dtype I8"),
    ],
)
def test_a_wrong_tensor(
    convert: Convert, tmp_path: Path, change: Callable[[TENSORS], None], words: str, num_files: int
) -> None:
    tensors = write_folder(tmp_path / "hf")
    os.remove(tmp_path / "hf" / "model.safetensors")
    change(tensors)
    write_tensors(tmp_path / "hf", tensors, num_files)
    refused(tmp_path, lambda target: convert.to_mcore(tmp_path / "hf", target), words)


def test_a_value_too_large_for_the_dtype(convert: Convert, tmp_path: Path) -> None:
    tensors = write_folder(tmp_path / "hf", dtype=torch.float32)
    tensors[DOWN][3, 5] = 3.4e38
    write_tensors(tmp_path / "hf", tensors, 1)
    words = f"{DOWN} does not fit bfloat16"
    refused(tmp_path, lambda target: convert.to_mcore(tmp_path / "hf", target, dtype="bfloat16"), words)


def change_index(folder: Path, change: Callable[[dict[str, str]], None]) -> None:
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    change(index["weight_map"])
    path.write_text(json.dumps(index))


def misplace(placed: dict[str, str]) -> None:
    placed[DOWN] = next(file for file in placed.values() if file != placed[DOWN])


def conceal(placed: dict[str, str]) -> None:
    del placed[DOWN]


def invent(placed: dict[str, str]) -> None:
    placed["model.layers.9.mlp.down_proj.weight"] = placed[DOWN]


def send_astray(placed: dict[str, str]) -> None:
    placed[DOWN] = "model-00009-of-00003.safetensors"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (misplace, f"{DOWN} is not in model-0"),
        (conceal, f"holds {DOWN}, which is not placed there"),
        (invent, "model.layers.9.mlp.down_proj.weight is not in"),
        (send_astray, "model-00009-of-00003.safetensors: no such file"),
    ],
)
def test_a_lying_index(
    convert: Convert, tmp_path: Path, change: Callable[[dict[str, str]], None], words: str
) -> None:
    write_folder(tmp_path / "hf", num_files=3)
    change_index(tmp_path / "hf", change)
    refused(tmp_path, lambda target: convert.to_mcore(tmp_path / "hf", target), words)


def test_a_file_missing(convert: Convert, tmp_path: Path) -> None:
    write_folder(tmp_path / "hf", num_files=3)
    (tmp_path / "hf" / "model-00002-of-00003.safetensors").unlink()
    words = "model-00002-of-00003.safetensors: no such file"
    refused(tmp_path, lambda target: convert.to_mcore(tmp_path / "hf", target), words)


def test_a_name_twice_in_one_header(convert: Convert, tmp_path: Path) -> None:
    write_folder(tmp_path / "hf")
    path = tmp_path / "hf" / "model.safetensors"
    raw = path.read_bytes()
    other = DOWN.replace("down_proj", "dawn_proj").replace("dawn", "down").replace(".2.", ".1.")
    path.write_bytes(raw.replace(f'"{other}"'.encode(), f'"{DOWN}"'.encode()))
    refused(tmp_path, lambda target: convert.to_mcore(tmp_path / "hf", target), "names a tensor twice")


@pytest.mark.parametrize("kept", [0, 5, 100, 20_000, -1])
def test_a_truncated_file(convert: Convert, tmp_path: Path, kept: int) -> None:
    write_folder(tmp_path / "hf")
    path = tmp_path / "hf" / "model.safetensors"
    raw = path.read_bytes()
    path.write_bytes(raw[:kept])
    words = "is damaged" if kept in (20_000, -1) else "model.safetensors"
    refused(tmp_path, lambda target: convert.to_mcore(tmp_path / "hf", target), words)


def test_bytes_after_the_last_tensor(convert: Convert, tmp_path: Path) -> None:
    write_folder(tmp_path / "hf")
    with (tmp_path / "hf" / "model.safetensors").open("ab") as file:
        file.write(b"\0\0\0")
    refused(tmp_path, lambda target: convert.to_mcore(tmp_path / "hf", target), "3 bytes after the last")


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory, convert: Convert) -> Path:
    """A folder, its checkpoint, with checksums as training writes them, and what came back, all whole."""
    root = tmp_path_factory.mktemp("pristine")
    write_folder(root / "hf", num_hidden_layers=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(to_mcore, "CheckpointWriter", with_checksums)
        convert.to_mcore(root / "hf", root / "mcore", parallel=Parallel(tensor=2))
    convert.to_hf(root / "mcore", root / "back")
    return root


def with_checksums(folder: Path, files: list[CheckpointFile], *, checksums: bool) -> CheckpointWriter:
    """What training does, and convert does not."""
    return CheckpointWriter(folder, files, checksums=True)


FUZZ = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(place=st.integers(0, 1 << 30), bit=st.integers(0, 7))
def test_a_flipped_bit_in_a_header(
    convert: Convert, tmp_path_factory: pytest.TempPathFactory, pristine: Path, place: int, bit: int
) -> None:
    """Refused, or without effect: an unused byte, or another name for what is dropped."""
    tmp_path = tmp_path_factory.mktemp("flip")
    shutil.copytree(pristine / "hf", tmp_path / "hf")
    path = tmp_path / "hf" / "model.safetensors"
    header = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    flip(path, place % header, bit)
    try:
        convert.to_mcore(tmp_path / "hf", tmp_path / "target")
    except InputError as error:
        assert "model" in str(error)
        assert not list(tmp_path.glob("target*"))
    else:
        convert.to_hf(tmp_path / "target", tmp_path / "back")
        assert_equal(read_tensors(tmp_path / "back"), read_tensors(pristine / "back"))


@FUZZ
@given(place=st.integers(0, 1 << 30), bit=st.integers(0, 7))
def test_a_flipped_bit_in_weights_that_were_converted(
    convert: Convert, tmp_path_factory: pytest.TempPathFactory, pristine: Path, place: int, bit: int
) -> None:
    tmp_path = tmp_path_factory.mktemp("flip")
    shutil.copytree(pristine / "back", tmp_path / "hf")
    path = tmp_path / "hf" / "model.safetensors"
    header = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    flip(path, header + place % (path.stat().st_size - header), bit)
    words = r"model\.[\w.]+ (is bfloat16 with digest|holds NaN)"
    refused(tmp_path, lambda target: convert.to_mcore(tmp_path / "hf", target), words)


def flip(path: Path, place: int, bit: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[place] ^= 1 << bit
    path.write_bytes(raw)


# --- checkpoints ------------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(tmp_path: Path, pristine: Path) -> Path:
    """A copy that a test may damage, without the digests of its conversion: as if from training."""
    folder = shutil.copytree(pristine / "mcore", tmp_path / "mcore")
    (folder / "conversion.json").unlink()
    return folder


def test_a_record_file_missing(convert: Convert, tmp_path: Path, checkpoint: Path) -> None:
    (checkpoint / "__0_00002_0.distcp").unlink()
    words = r"__0_00002_0.distcp: missing; it holds decoder\.layers\.[\w.]+ at \(1, 0"
    refused(tmp_path, lambda target: convert.to_hf(checkpoint, target), words)


@pytest.mark.parametrize("kept", [0, 1000, -1])
def test_a_truncated_record_file(convert: Convert, tmp_path: Path, checkpoint: Path, kept: int) -> None:
    path = checkpoint / "__0_00001_0.distcp"
    path.write_bytes(path.read_bytes()[:kept])
    words = r"__0_00001_0.distcp: ends at \d+ bytes, inside decoder.layers"
    refused(tmp_path, lambda target: convert.to_hf(checkpoint, target), words)


@pytest.mark.parametrize("name", [".metadata", "metadata.json"])
def test_metadata_missing(convert: Convert, tmp_path: Path, checkpoint: Path, name: str) -> None:
    (checkpoint / name).unlink()
    refused(tmp_path, lambda target: convert.to_hf(checkpoint, target), "metadata")


def change_metadata(checkpoint: Path, change: Callable[[Any], None]) -> None:
    metadata = FileSystemReader(checkpoint).read_metadata()
    change(metadata)
    (checkpoint / ".metadata").write_bytes(pickle.dumps(metadata))


FC2 = "decoder.layers.mlp.linear_fc2.weight"


def rename_key(metadata: Any) -> None:
    metadata.state_dict_metadata["decoder.layers.mlp.linear_fc3.weight"] = metadata.state_dict_metadata.pop(
        FC2
    )


def lose_chunk(metadata: Any) -> None:
    metadata.state_dict_metadata[FC2].chunks.pop(0)


def double_chunk(metadata: Any) -> None:
    chunks = metadata.state_dict_metadata[FC2].chunks
    chunks[1] = chunks[0]


def lose_record(metadata: Any) -> None:
    chunk = metadata.state_dict_metadata[FC2].chunks[0]
    del metadata.storage_data[MetadataIndex(FC2, chunk.offsets)]


def lie_about_size(metadata: Any) -> None:
    metadata.state_dict_metadata[FC2].size = torch.Size((2, 64, 98))


def lie_about_dtype(metadata: Any) -> None:
    for stored in metadata.state_dict_metadata.values():
        if hasattr(stored, "properties"):
            stored.properties.dtype = torch.float16


def differ_in_dtype(metadata: Any) -> None:
    metadata.state_dict_metadata[FC2].properties.dtype = torch.float32


def swap_records(metadata: Any) -> None:
    found = [index for index in metadata.storage_data if index.fqn == FC2]
    other = next(index for index in metadata.storage_data if index.fqn.endswith("linear_fc1.weight"))
    metadata.storage_data[found[0]] = metadata.storage_data[other]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (rename_key, "left over decoder.layers.mlp.linear_fc3.weight; missing " + FC2),
        (lose_chunk, rf"{FC2}\[0\]: 3072 elements are in no record"),
        (double_chunk, f"{FC2} has two records at one place"),
        (lose_record, rf"{FC2} at \(0, 0, 0\) has no record"),
        (lie_about_size, rf"{FC2} is \(2, 64, 98\), expected \(2, 64, 96\)"),
        (lie_about_dtype, "the record is not the .* torch.float16"),
        (differ_in_dtype, f"{FC2} is torch.float32"),
        (swap_records, rf"{FC2}\[0\]: the record is not the"),
    ],
)
def test_lying_metadata(
    convert: Convert, tmp_path: Path, checkpoint: Path, change: Callable[[Any], None], words: str
) -> None:
    change_metadata(checkpoint, change)
    refused(tmp_path, lambda target: convert.to_hf(checkpoint, target), words)


class Harmful:
    """A pickle that runs a command when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch harm-done",)


def test_metadata_cannot_run_code(convert: Convert, tmp_path: Path, checkpoint: Path) -> None:
    (checkpoint / ".metadata").write_bytes(pickle.dumps(Harmful()))
    words = "has no place in a checkpoint's metadata"
    refused(tmp_path, lambda target: convert.to_hf(checkpoint, target), words)
    assert not Path("harm-done").exists()


def test_the_wrong_model(convert: Convert, tmp_path: Path, checkpoint: Path) -> None:
    write_folder(tmp_path / "other", num_hidden_layers=2, intermediate_size=128)
    words = r"decoder.layers.mlp.linear_fc1.weight is \(2, 192, 64\), expected \(2, 256, 64\)"
    refused(tmp_path, lambda target: convert.to_hf(checkpoint, target, like=tmp_path / "other"), words)


def test_a_checkpoint_with_nan(convert: Convert, tmp_path: Path, pristine: Path) -> None:
    tensors = read_tensors(pristine / "hf")
    tensors[UP][2, 3] = float("nan")
    write_checkpoint(tmp_path / "mcore", pristine / "hf", tensors)
    refused(tmp_path, lambda target: convert.to_hf(tmp_path / "mcore", target), f"{UP} holds NaN")


def write_checkpoint(folder: Path, model: Path, tensors: TENSORS) -> None:
    """A checkpoint of tensors that nobody looked at."""
    parameters = model_parameters(model_shape.read(model))
    folder.mkdir()
    file = CheckpointFile("0_00000", parameters, 1, "bfloat16")
    writer = CheckpointWriter(folder, [file], checksums=True)

    def make_box(parameter: Parameter, cut: Cut) -> Tensor:
        return cut_out(cut, tensors, Scratch())

    writer.finish(writer.write(file, make_box))
    companions.copy_all(model, folder / companions.CARRIED)


def test_neither_checksums_nor_digests(convert: Convert, tmp_path: Path) -> None:
    write_folder(tmp_path / "hf", num_hidden_layers=2)
    convert.to_mcore(tmp_path / "hf", tmp_path / "mcore")
    (tmp_path / "mcore" / "conversion.json").unlink()
    words = r"(decoder|embedding)\.[\w.]+: .* without checksums"
    refused(tmp_path, lambda target: convert.to_hf(tmp_path / "mcore", target), words)


@FUZZ
@given(file=st.integers(0, 99), place=st.integers(0, 1 << 30), bit=st.integers(0, 7))
def test_a_flipped_bit_in_a_checkpoint(
    convert: Convert,
    tmp_path_factory: pytest.TempPathFactory,
    pristine: Path,
    file: int,
    place: int,
    bit: int,
) -> None:
    """Metadata and records, as training leaves them: refused by name, or an unused byte."""
    tmp_path = tmp_path_factory.mktemp("flip")
    folder = shutil.copytree(pristine / "mcore", tmp_path / "mcore")
    (folder / "conversion.json").unlink()
    files = [folder / ".metadata", *sorted(folder.glob("*.distcp"))]
    path = files[file % len(files)]
    flip(path, place % path.stat().st_size, bit)
    try:
        convert.to_hf(folder, tmp_path / "target")
    except InputError as error:
        assert any(word in str(error) for word in (path.name, "decoder.", "embedding."))
        assert not list(tmp_path.glob("target*"))
    else:
        assert_equal(read_tensors(tmp_path / "target"), read_tensors(pristine / "back"))
