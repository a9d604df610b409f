"""A server that is started again finds its weights; a copy that is not whole is not found."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from torch import Tensor

from apriel_mcore.bridge.local_copy import Label, LocalCopy
from apriel_mcore.errors import BridgeError
from apriel_mcore.seams import Sent

SIZES = {"a": (3, 2), "b": (4,)}


def label(version: int, sender: str = "me") -> Label:
    return Label(sender=sender, version=version)


def writer(value: float):
    def write(views: Mapping[str, Tensor]) -> Sent:
        for view in views.values():
            view.fill_(value)
        return Sent(num_tensors=2, num_bytes=40, digest=str(value))

    return write


def open_copy(folder: Path, sizes: dict[str, tuple[int, ...]] = SIZES) -> LocalCopy:
    return LocalCopy(folder, "rank0", sizes, "float32")


def found(copy: LocalCopy, wanted: Label) -> tuple[float, str] | None:
    entry = copy.find(wanted)
    return (entry[0]["b"][0].item(), entry[1].digest) if entry else None


def test_the_last_two_versions_are_there_also_for_the_next_process(tmp_path: Path) -> None:
    copy = open_copy(tmp_path)
    assert copy.find(label(0)) is None
    for version in range(3):
        copy.fill(label(version), writer(float(version)))
    for reader in (copy, open_copy(tmp_path)):
        assert found(reader, label(2)) == (2.0, "2.0")
        assert found(reader, label(1)) == (1.0, "1.0")
        assert reader.find(label(0)) is None
        assert reader.find(label(2, sender="another run")) is None


def test_a_version_that_breaks_off_is_not_found_and_spares_the_one_before(tmp_path: Path) -> None:
    copy = open_copy(tmp_path)
    copy.fill(label(1), writer(1.0))
    copy.fill(label(2), writer(2.0))

    def break_off(views: Mapping[str, Tensor]) -> Sent:
        views["a"].fill_(9.0)
        raise BridgeError("the trainer is gone")

    with pytest.raises(BridgeError):
        copy.fill(label(3), break_off)
    assert copy.find(label(3)) is None
    assert copy.find(label(1)) is None
    assert found(copy, label(2)) == (2.0, "2.0")
    copy.fill(label(3), writer(3.0))
    assert found(copy, label(2)) == (2.0, "2.0")
    assert found(copy, label(3)) == (3.0, "3.0")


def test_files_of_another_layout_are_replaced_with_their_notes(tmp_path: Path) -> None:
    open_copy(tmp_path).fill(label(1), writer(1.0))
    other = open_copy(tmp_path, {"a": (3, 2), "b": (5,)})
    assert other.find(label(1)) is None
    other.fill(label(1), writer(4.0))
    assert found(other, label(1)) == (4.0, "4.0")


def test_a_damaged_file_is_replaced(tmp_path: Path) -> None:
    open_copy(tmp_path).fill(label(1), writer(1.0))
    for path in tmp_path.glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:100])
    assert open_copy(tmp_path).find(label(1)) is None
