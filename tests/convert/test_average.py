"""The mean of checkpoints: exact in float32, rounded once, refused where it makes no sense."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from apriel_mcore.config.schema import Parallel
from apriel_mcore.convert import average, report
from apriel_mcore.errors import InputError
from tests.convert.conftest import Convert
from tests.convert.folders import assert_equal, read_tensors, write_folder


def averaged(sources: list[Path], target: Path) -> None:
    average.convert(sources, target, like=None, dtype=None, max_file_bytes=1 << 30)


def test_the_mean_of_two_layouts_is_rounded_once(convert: Convert, tmp_path: Path) -> None:
    first = write_folder(tmp_path / "a")
    second = {name: (tensor.float() * 1.25 + 0.01).to(torch.bfloat16) for name, tensor in first.items()}
    write_folder(tmp_path / "b")
    save_file(second, tmp_path / "b" / "model.safetensors", metadata={"format": "pt"})
    convert.to_mcore(tmp_path / "a", tmp_path / "mcore_a", parallel=Parallel(tensor=2))
    convert.to_mcore(tmp_path / "b", tmp_path / "mcore_b", parallel=Parallel(pipeline=2))
    averaged([tmp_path / "mcore_a", tmp_path / "mcore_b"], tmp_path / "mean")
    expected = {
        name: ((tensor.float() + second[name].float()) / 2).to(torch.bfloat16)
        for name, tensor in first.items()
    }
    assert_equal(read_tensors(tmp_path / "mean"), expected)
    assert (tmp_path / "mean" / "tokenizer.json").read_bytes() == (
        tmp_path / "a" / "tokenizer.json"
    ).read_bytes()
    written = report.read(tmp_path / "mean")
    assert written is not None and written.job.direction == "average"


def test_another_shape_is_refused_by_name(convert: Convert, tmp_path: Path) -> None:
    write_folder(tmp_path / "a")
    write_folder(tmp_path / "b", intermediate_size=64)
    convert.to_mcore(tmp_path / "a", tmp_path / "mcore_a")
    convert.to_mcore(tmp_path / "b", tmp_path / "mcore_b")
    with pytest.raises(InputError, match="mcore_b"):
        averaged([tmp_path / "mcore_a", tmp_path / "mcore_b"], tmp_path / "mean")
    assert not (tmp_path / "mean").exists()


def test_one_checkpoint_has_no_mean(convert: Convert, tmp_path: Path) -> None:
    write_folder(tmp_path / "a")
    convert.to_mcore(tmp_path / "a", tmp_path / "mcore_a")
    for sources in ([tmp_path / "mcore_a"], [tmp_path / "mcore_a"] * 2):
        with pytest.raises(InputError, match="two checkpoints"):
            averaged(sources, tmp_path / "mean")
