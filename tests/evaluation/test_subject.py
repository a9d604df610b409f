"""A model's name on record is its content: what shapes an answer counts, and nothing else does."""

from pathlib import Path

import pytest
from safetensors.torch import save_file

from apriel_mcore.config.schema import FolderModel
from apriel_mcore.errors import InputError
from apriel_mcore.evaluation import subject
from tests.convert.conftest import Convert
from tests.convert.folders import assert_equal, read_tensors, write_folder


def folder(path: Path) -> subject.Subject:
    return subject.folder(FolderModel(path=str(path)))


def test_a_folder_is_its_files(tmp_path: Path) -> None:
    tensors = write_folder(tmp_path / "a")
    write_folder(tmp_path / "b")
    first = folder(tmp_path / "a")
    assert first.digest == folder(tmp_path / "b").digest, "wherever it lies"
    (tmp_path / "b" / "README.md").write_text("words")
    assert first.digest == folder(tmp_path / "b").digest
    (tmp_path / "b" / "chat_template.jinja").write_text("{{ messages }}")
    with_template = folder(tmp_path / "b").digest
    assert first.digest != with_template
    save_file({name: t + 1 for name, t in tensors.items()}, tmp_path / "b" / "model.safetensors")
    assert folder(tmp_path / "b").digest not in (first.digest, with_template)


def test_a_checkpoint_is_converted_and_forgotten(tmp_path: Path) -> None:
    tensors = write_folder(tmp_path / "hf")
    Convert().to_mcore(tmp_path / "hf", tmp_path / "run" / "checkpoints" / "step_000003")
    found = subject.checkpoint(tmp_path / "run" / "checkpoints" / "step_000003")
    assert (found.name, found.kind) == ("run-step_000003", "checkpoint")
    elsewhere = FolderModel(path=str(tmp_path / "not there"))  # it carries its own config and tokenizer
    model = subject.model_of(found, elsewhere, tmp_path / "evals")
    assert_equal(read_tensors(model), tensors)
    written = (model / "model.safetensors").stat().st_mtime_ns
    assert subject.model_of(found, elsewhere, tmp_path / "evals") == model
    assert (model / "model.safetensors").stat().st_mtime_ns == written, "found converted"
    subject.forget(found, tmp_path / "evals")
    assert not model.exists()


def test_what_is_no_checkpoint(tmp_path: Path) -> None:
    write_folder(tmp_path / "hf")
    with pytest.raises(InputError, match="not a checkpoint"):
        subject.checkpoint(tmp_path / "hf")
