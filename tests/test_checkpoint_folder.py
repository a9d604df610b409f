"""A sealed folder vouches for every bit of its files; pruning keeps the latest and the best."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apriel_mcore import checkpoint_folder as folders

CONTENT = {"__0_0.distcp": b"weights" * 100, "__1_0.distcp": b"moments" * 50, "state.json": b'{"step": 3}'}


def sealed(root: Path, step: int) -> Path:
    folder = folders.folder_of(root, step)
    partial = folders.partial_of(folder)
    partial.mkdir(parents=True)
    for name, content in CONTENT.items():
        (partial / name).write_bytes(content)
    folders.seal(partial, folder, {"__0_0.distcp": folders.sum_of(partial / "__0_0.distcp")})
    return folder


def test_a_sealed_folder_is_complete_and_healthy(tmp_path: Path) -> None:
    folder = sealed(tmp_path, 3)
    assert folders.complete(tmp_path) == [folder]
    assert folders.defects(folder) == []
    assert not list(tmp_path.glob("*.partial"))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(sorted(CONTENT)), where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_every_flipped_bit_is_found_by_exactly_one_rank(
    tmp_path_factory: pytest.TempPathFactory, name: str, where: float, bit: int
) -> None:
    folder = sealed(tmp_path_factory.mktemp("root"), 3)
    content = bytearray(CONTENT[name])
    content[int(where * len(content))] ^= 1 << bit
    (folder / name).write_bytes(content)
    found = [folders.defects(folder, part=part, num_parts=2) for part in range(2)]
    assert sorted(found) == [[], [f"{name}: its content changed since it was written"]]


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    folder = sealed(tmp_path, 3)
    os.truncate(folder / "__0_0.distcp", 10)
    (folder / "__1_0.distcp").unlink()
    assert folders.defects(folder) == [
        "__0_0.distcp: 10 bytes, 700 were written",
        "__1_0.distcp: missing",
    ]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"files": {}, "bytes": {}}', '{"files": {"a": "b"}}'])
def test_a_broken_manifest_vouches_for_nothing(tmp_path: Path, text: str) -> None:
    folder = sealed(tmp_path, 3)
    (folder / folders.MANIFEST).write_text(text)
    (defect,) = folders.defects(folder)
    assert defect.startswith("integrity.json: ")


def test_the_latest_and_the_best_stay(tmp_path: Path) -> None:
    for step in (2, 10, 4, 6, 8):
        sealed(tmp_path, step)
    (tmp_path / "step_000012.partial").mkdir()
    folders.set_aside(folders.folder_of(tmp_path, 6))
    (tmp_path / "step_000011").mkdir()  # no manifest: not ours
    folders.prune(tmp_path, keep=2, best={4, 10})
    assert sorted(os.listdir(tmp_path)) == ["step_000004", "step_000008", "step_000010", "step_000011"]
