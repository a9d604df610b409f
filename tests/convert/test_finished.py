"""A finished result is looked at again: whatever of it is gone or changed is named, and a check that has not
run runs; what could not be checked is kept."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from apriel_mcore.config.schema import Parallel
from apriel_mcore.convert import average, parity, report, with_images
from apriel_mcore.convert.parity import Measured
from apriel_mcore.convert.workplace import partial_of
from apriel_mcore.errors import BridgeError, InputError, ProbeError
from tests.convert.conftest import Convert
from tests.convert.folders import write_folder

type Damage = Callable[[Path], None]


def delete(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


def flip(at: float) -> Damage:
    """One bit, this far into the file."""

    def change(path: Path) -> None:
        raw = bytearray(path.read_bytes())
        raw[int(at * (len(raw) - 1))] ^= 1
        path.write_bytes(raw)

    return change


DAMAGES = [delete, truncate, lengthen, flip(0.0), flip(0.5), flip(1.0)]
IDS = ["delete", "truncate", "lengthen", "flip first", "flip middle", "flip last"]


def assert_damage_is_found(call: Callable[[], report.Report], folder: Path, damage: Damage) -> None:
    """In every file of the result but the report, one after the other; each is then put back."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != report.REPORT_FILE]
    assert len(files) >= 4
    for path in files:
        kept, status = path.read_bytes(), path.stat()
        damage(path)
        try:
            with pytest.raises(InputError, match=r"damaged since: .*; remove the folder, or") as refusal:
                call()
            # One letter of a name changed in the metadata is a tensor that is missing, and is told so.
            assert path.name in str(refusal.value) or path.name == ".metadata"
            assert folder.is_dir(), "nothing finished is removed"
        finally:
            path.write_bytes(kept)
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # it may be another test's source
    assert call().found_finished


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, convert: Convert) -> Path:
    """A whole model, its checkpoint at two tensor ranks, and the folder that came back in several files."""
    root = tmp_path_factory.mktemp("finished")
    write_folder(root / "hf", llava=True, num_hidden_layers=1)
    convert.to_mcore(root / "hf", root / "mcore", parallel=Parallel(tensor=2))
    convert.to_hf(root / "mcore", root / "back", max_file_bytes=50_000)
    with_images.convert(root / "back", root / "hf", root / "whole")
    return root


@pytest.mark.parametrize("damage", DAMAGES, ids=IDS)
def test_a_damaged_checkpoint(convert: Convert, made: Path, damage: Damage) -> None:
    def call() -> report.Report:
        return convert.to_mcore(made / "hf", made / "mcore", parallel=Parallel(tensor=2))

    assert_damage_is_found(call, made / "mcore", damage)


@pytest.mark.parametrize("damage", DAMAGES, ids=IDS)
def test_a_damaged_folder(convert: Convert, made: Path, damage: Damage) -> None:
    def call() -> report.Report:
        return convert.to_hf(made / "mcore", made / "back", max_file_bytes=50_000)

    assert_damage_is_found(call, made / "back", damage)


@pytest.mark.parametrize("damage", [delete, flip(0.9)], ids=["delete", "flip"])
def test_a_damaged_whole_model(made: Path, damage: Damage) -> None:
    def call() -> report.Report:
        return with_images.convert(made / "back", made / "hf", made / "whole")

    assert_damage_is_found(call, made / "whole", damage)


# --- the parity check -------------------------------------------------------------------------------


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets how the process ends that compares log-probs."""
    monkeypatch.setattr(parity, "_available_bytes", lambda: 1 << 50)

    def ends(*, code: int = 0, difference: float = 1e-7, says: str = "") -> None:
        measured = Measured(tokens=48, max_abs_diff=difference, mean_abs_diff=difference, seconds=1.0)

        def run(command: list[str], **_options: Any) -> subprocess.CompletedProcess[str]:
            output = msgspec.json.encode(measured).decode() if code == 0 else ""
            return subprocess.CompletedProcess(command, code, output, says)

        monkeypatch.setattr(subprocess, "run", run)

    return ends


TRACEBACK = "Traceback (most recent call last):\n  File ...\nImportError: cannot import name 'x'\n\n"


@pytest.mark.parametrize(("code", "says"), [(-9, ""), (1, TRACEBACK)], ids=["killed", "import error"])
def test_a_check_that_cannot_run_keeps_the_work(
    convert: Convert, tmp_path: Path, child: Callable[..., None], code: int, says: str
) -> None:
    """In both directions; the next call writes no weights again."""
    write_folder(tmp_path / "hf", num_hidden_layers=2)
    calls = (
        (lambda: convert.to_mcore(tmp_path / "hf", tmp_path / "mcore", probe=True), tmp_path / "mcore", 4),
        (lambda: convert.to_hf(tmp_path / "mcore", tmp_path / "back", probe=True), tmp_path / "back", 1),
    )
    for call, target, num_files in calls:
        child(code=code, says=says)
        with pytest.raises(ProbeError) as failure:
            call()
        said = str(failure.value)
        assert f"could not run: it ended with {code}" in said and f"kept in {partial_of(target)}" in said
        assert len(said.splitlines()) == 1 and ("ImportError: cannot" in said) == bool(says)
        times = weight_times(partial_of(target))
        child()
        made = call()
        assert (made.parity.status, made.parts_taken_over) == ("passed", num_files)
        assert weight_times(target) == times and len(times) == num_files


def weight_times(folder: Path) -> dict[str, int]:
    files = [*folder.glob("*.safetensors"), *folder.glob("__[0-9]*.distcp")]
    return {path.name: path.stat().st_mtime_ns for path in files}


def test_a_measured_difference_removes_it(
    convert: Convert, tmp_path: Path, child: Callable[..., None]
) -> None:
    write_folder(tmp_path / "hf", num_hidden_layers=1)
    child(difference=0.5)
    with pytest.raises(BridgeError, match=r"differ by up to 0\.5 nats"):
        convert.to_mcore(tmp_path / "hf", tmp_path / "mcore", probe=True)
    assert not list(tmp_path.glob("mcore*"))


def test_a_second_call_makes_up_for_the_check(
    convert: Convert, tmp_path: Path, child: Callable[..., None]
) -> None:
    """The report then says so, and a third call does not run it again."""
    source, target = tmp_path / "hf", tmp_path / "mcore"
    write_folder(source, num_hidden_layers=1)
    assert convert.to_mcore(source, target).parity.status == "skipped"
    child(code=-9)
    with pytest.raises(ProbeError, match=r"could not run.* was finished before and read back again"):
        convert.to_mcore(source, target, probe=True)
    child(difference=0.5)
    with pytest.raises(BridgeError, match="differ by up to"):
        convert.to_mcore(source, target, probe=True)
    child()
    made = convert.to_mcore(source, target, probe=True)
    assert made.found_finished and made.parity.status == "passed"
    kept = report.read(target)
    assert kept is not None and kept.parity == made.parity and not kept.found_finished
    child(code=-9)
    assert convert.to_mcore(source, target, probe=True) == made
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf", "mcore"]


# --- on disk ----------------------------------------------------------------------------------------


def test_everything_is_on_disk_before_it_has_its_name(
    convert: Convert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file and folder of a result, synced before the rename; the folder it lies in, after."""
    synced: set[int] = set()
    checked: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def noting(descriptor: int) -> None:
        synced.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def checking(path: Path, target: Path) -> Path:
        if path.is_dir():
            inside = [path, *path.rglob("*")]
            assert [found.name for found in inside if found.stat().st_ino not in synced] == []
            checked.append(path.name)
            synced.clear()
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", noting)
    monkeypatch.setattr(Path, "rename", checking)
    write_folder(tmp_path / "hf", llava=True, num_hidden_layers=1)
    convert.to_mcore(tmp_path / "hf", tmp_path / "mcore")
    convert.to_mcore(tmp_path / "hf", tmp_path / "other", parallel=Parallel(tensor=2))
    convert.to_hf(tmp_path / "mcore", tmp_path / "back", max_file_bytes=50_000)
    with_images.convert(tmp_path / "back", tmp_path / "hf", tmp_path / "whole")
    sources = [tmp_path / "mcore", tmp_path / "other"]
    average.convert(sources, tmp_path / "mean", like=None, dtype=None, max_file_bytes=1 << 30)
    assert checked == [f"{name}.partial" for name in ("mcore", "other", "back", "whole", "mean")]
    assert tmp_path.stat().st_ino in synced
