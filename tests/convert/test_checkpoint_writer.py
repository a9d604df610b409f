"""What is written is what was made, whatever devices the host has."""

from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint import filesystem

from apriel_mcore.config.schema import Parallel
from tests.convert.conftest import Convert
from tests.convert.folders import assert_equal, read_tensors, write_folder


def test_a_gpu_in_the_host_changes_nothing(
    convert: Convert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There torch's writer would ask for several boxes before it writes the first."""
    tensors = write_folder(tmp_path / "hf")
    # A GPU for whoever asks torch; its streams are the CPU's, which wait for nothing.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(filesystem, "_get_available_device_type", lambda: "cpu")
    monkeypatch.setattr(torch.cpu.Stream, "synchronize", lambda _: None, raising=False)
    convert.to_mcore(tmp_path / "hf", tmp_path / "mcore", parallel=Parallel(tensor=2))
    convert.to_hf(tmp_path / "mcore", tmp_path / "back")
    assert_equal(read_tensors(tmp_path / "back"), tensors)
