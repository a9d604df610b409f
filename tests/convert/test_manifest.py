"""A run's checkpoint is converted only if its files are those of its manifest, optimizer state included."""

from collections.abc import Callable
from pathlib import Path

import pytest

from apriel_mcore.checkpoint_folder import MANIFEST, STATE_FILE, seal
from apriel_mcore.convert.report import REPORT_FILE
from apriel_mcore.errors import InputError
from tests.convert.conftest import Convert
from tests.convert.folders import assert_equal, read_tensors, write_folder

OPTIMIZER = "__9_0.distcp"


@pytest.fixture
def sealed(convert: Convert, tmp_path: Path) -> Path:
    """What a run would have saved: no digests of tensors, a file that convert has no use for, a manifest."""
    write_folder(tmp_path / "hf")
    partial = tmp_path / "step_000003.partial"
    convert.to_mcore(tmp_path / "hf", partial)
    (partial / REPORT_FILE).unlink()
    for path in (partial / "hf").iterdir():
        path.unlink()
    (partial / "hf").rmdir()
    (partial / STATE_FILE).write_text('{"step": 3}')
    (partial / OPTIMIZER).write_bytes(b"moments" * 100)
    seal(partial, tmp_path / "step_000003", {})
    return tmp_path / "step_000003"


def test_a_whole_checkpoint_is_converted(convert: Convert, sealed: Path, tmp_path: Path) -> None:
    convert.to_hf(sealed, tmp_path / "back", like=tmp_path / "hf")
    assert_equal(read_tensors(tmp_path / "back"), read_tensors(tmp_path / "hf"))


def flip(checkpoint: Path) -> None:
    """One bit of the optimizer's file."""
    content = bytearray((checkpoint / OPTIMIZER).read_bytes())
    content[350] ^= 1
    (checkpoint / OPTIMIZER).write_bytes(content)


def flip_weight(checkpoint: Path) -> None:
    """One bit of a weight, which torch would load without a word."""
    path = max(checkpoint.glob("*.distcp"), key=lambda file: file.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def remove(name: str) -> Callable[[Path], None]:
    """Take a file away."""
    return lambda checkpoint: (checkpoint / name).unlink()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (flip, f"{OPTIMIZER}: its content changed"),
        (flip_weight, r"\.distcp: its content changed"),
        (remove(OPTIMIZER), f"{OPTIMIZER}: missing"),
        (remove(STATE_FILE), f"{STATE_FILE}: missing"),
        (remove(MANIFEST), f"without {MANIFEST}"),
        (lambda checkpoint: (checkpoint / MANIFEST).write_text("{"), f"{MANIFEST}: unreadable"),
    ],
)
def test_another_one_is_refused_by_file(
    convert: Convert, sealed: Path, tmp_path: Path, damage: Callable[[Path], object], words: str
) -> None:
    damage(sealed)
    with pytest.raises(InputError, match=words):
        convert.to_hf(sealed, tmp_path / "back", like=tmp_path / "hf")
    assert not list(tmp_path.glob("back*"))
