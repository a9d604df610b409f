"""A checkpoint's config, tokenizer and metadata are what its conversion.json says, or refused by name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from apriel_mcore.convert import average
from apriel_mcore.errors import InputError
from tests.convert.conftest import Convert
from tests.convert.folders import change_config, write_folder


def other_theta(checkpoint: Path) -> None:
    change_config(checkpoint / "hf", rope_theta=777.0)


def other_eps(checkpoint: Path) -> None:
    change_config(checkpoint / "hf", rms_norm_eps=0.1)


def no_tokenizer(checkpoint: Path) -> None:
    (checkpoint / "hf" / "tokenizer.json").unlink()


def no_config(checkpoint: Path) -> None:
    (checkpoint / "hf" / "config.json").unlink()


def other_metadata(checkpoint: Path) -> None:
    path = checkpoint / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()), indent=3))


def flipped_metadata(checkpoint: Path) -> None:
    path = checkpoint / ".metadata"
    path.write_bytes(path.read_bytes()[:-1] + b"!")


CONFIG = "hf/config.json has changed"
CHANGES = [
    (other_theta, CONFIG),
    (other_eps, CONFIG),
    (no_tokenizer, "hf/tokenizer.json is missing"),
    (no_config, "hf/config.json is missing"),
    (other_metadata, "metadata.json has changed"),
    (flipped_metadata, r"\.metadata has changed"),
]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory, convert: Convert) -> Path:
    root = tmp_path_factory.mktemp("carried")
    write_folder(root / "hf", num_hidden_layers=1)
    convert.to_mcore(root / "hf", root / "mcore")
    return root


@pytest.fixture
def checkpoint(tmp_path: Path, pristine: Path) -> Path:
    """A copy that a test may change."""
    return shutil.copytree(pristine / "mcore", tmp_path / "mcore")


@pytest.mark.parametrize(("change", "words"), CHANGES)
def test_what_changed_is_named(
    convert: Convert, tmp_path: Path, checkpoint: Path, change: Callable[[Path], None], words: str
) -> None:
    change(checkpoint)
    with pytest.raises(InputError, match=rf"mcore: {words} since .*conversion\.json.*--like"):
        convert.to_hf(checkpoint, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_a_mean_uses_the_first_ones_config(tmp_path: Path, pristine: Path, checkpoint: Path) -> None:
    other_eps(checkpoint)
    sources = [checkpoint, pristine / "mcore"]
    with pytest.raises(InputError, match=f"mcore: {CONFIG}"):
        average.convert(sources, tmp_path / "out", like=None, dtype=None, max_file_bytes=1 << 30)
    average.convert(sources[::-1], tmp_path / "out", like=None, dtype=None, max_file_bytes=1 << 30)


def test_another_config_on_purpose(
    convert: Convert, tmp_path: Path, pristine: Path, checkpoint: Path
) -> None:
    """--like says whose config is meant; what the checkpoint carries is then not used."""
    no_tokenizer(checkpoint)
    convert.to_hf(checkpoint, tmp_path / "out", like=pristine / "hf")
    assert (tmp_path / "out" / "tokenizer.json").is_file()
