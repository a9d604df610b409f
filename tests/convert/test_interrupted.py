"""A conversion that was killed goes on where it stopped and ends with the same bytes; nobody takes its
half for a whole, and what it left is checked before it is kept."""

import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from apriel_mcore.convert.journal import Journal
from apriel_mcore.convert.workplace import partial_of
from apriel_mcore.errors import InputError
from tests.convert.conftest import Convert
from tests.convert.folders import change_config, write_folder

SIZES = {"num_hidden_layers": 12, "hidden_size": 256, "intermediate_size": 512}


def kill_halfway(command: list[str], target: Path) -> None:
    """SIGKILL as soon as the journal knows two finished files."""
    child = subprocess.Popen(
        [sys.executable, "-m", "apriel_mcore.cli", "convert", *command, str(target), "--no-probe"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    journal = partial_of(target) / ".journal.jsonl"
    while not journal.exists() or journal.read_bytes().count(b"\n") < 3:
        assert child.poll() is None, "it ended before it could be killed"
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert not target.exists()


def contents(folder: Path) -> dict[str, bytes]:
    """Of all files that hold weights or place them."""
    patterns = ("*.distcp", "*.safetensors", "*.index.json", "hf/*")
    return {path.name: path.read_bytes() for pattern in patterns for path in folder.glob(pattern)}


def test_to_mcore_goes_on(convert: Convert, tmp_path: Path) -> None:
    write_folder(tmp_path / "hf", **SIZES)
    kill_halfway(["hf-to-mcore", str(tmp_path / "hf")], tmp_path / "mcore")
    made = convert.to_mcore(tmp_path / "hf", tmp_path / "mcore")
    assert 2 <= made.parts_taken_over < 14
    straight = convert.to_mcore(tmp_path / "hf", tmp_path / "straight")
    assert contents(tmp_path / "mcore") == contents(tmp_path / "straight")
    assert [r.digest_after for r in made.tensors] == [r.digest_after for r in straight.tensors]
    assert not list(tmp_path.glob("*.partial")) and not list((tmp_path / "mcore").glob("*.partial"))
    assert not (tmp_path / "mcore" / ".journal.jsonl").exists()
    convert.to_hf(tmp_path / "mcore", tmp_path / "back")


def test_to_hf_goes_on(convert: Convert, tmp_path: Path) -> None:
    write_folder(tmp_path / "hf", **SIZES)
    convert.to_mcore(tmp_path / "hf", tmp_path / "mcore")
    command = ["mcore-to-hf", str(tmp_path / "mcore"), "--shard-gb", "0.001"]
    kill_halfway(command, tmp_path / "back")
    made = convert.to_hf(tmp_path / "mcore", tmp_path / "back", max_file_bytes=1_000_000)
    assert made.parts_taken_over >= 2
    convert.to_hf(tmp_path / "mcore", tmp_path / "straight", max_file_bytes=1_000_000)
    assert contents(tmp_path / "back") == contents(tmp_path / "straight")


class Stop(Exception):
    """Something other than a refusal."""


def stop_after(parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal's next part after `parts` never comes."""
    append, count = Journal._append, [0]

    def counting(journal: Journal, record: object) -> None:
        count[0] += 1
        if count[0] > parts + 1:  # the job's own line comes first
            raise Stop
        append(journal, record)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(Journal, "_append", counting)


@pytest.fixture
def begun(convert: Convert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an unfinished conversion of `hf` to `mcore`, with three finished files."""
    write_folder(tmp_path / "hf")
    with monkeypatch.context() as patch, pytest.raises(Stop):
        stop_after(3, patch)
        convert.to_mcore(tmp_path / "hf", tmp_path / "mcore")
    return partial_of(tmp_path / "mcore")


def finished(begun: Path) -> list[str]:
    """Files that the journal knows; two threads write, so which ones is open."""
    return sorted(set(re.findall(r'"file":"([^"]+)"', (begun / ".journal.jsonl").read_text())))


def test_finished_files_are_kept(convert: Convert, tmp_path: Path, begun: Path) -> None:
    times = {name: (begun / name).stat().st_mtime_ns for name in finished(begun)}
    assert convert.to_mcore(tmp_path / "hf", tmp_path / "mcore").parts_taken_over == 3
    assert len(times) == 3
    assert times == {name: (tmp_path / "mcore" / name).stat().st_mtime_ns for name in times}


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_file_is_written_again(convert: Convert, tmp_path: Path, begun: Path, damage: str) -> None:
    path = begun / finished(begun)[1]
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.unlink()
    if damage != "remove":
        path.write_bytes(raw if damage == "flip" else raw[: len(raw) // 2])
    assert convert.to_mcore(tmp_path / "hf", tmp_path / "mcore").parts_taken_over == 2
    convert.to_mcore(tmp_path / "hf", tmp_path / "straight")
    assert contents(tmp_path / "mcore") == contents(tmp_path / "straight")


def test_a_line_half_written_does_not_count(convert: Convert, tmp_path: Path, begun: Path) -> None:
    journal = begun / ".journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-10])
    assert convert.to_mcore(tmp_path / "hf", tmp_path / "mcore").parts_taken_over == 2


def test_another_source_is_refused(convert: Convert, tmp_path: Path, begun: Path) -> None:
    write_folder(tmp_path / "other", tied=False)
    with pytest.raises(InputError, match="unfinished conversion of another source, config or layout"):
        convert.to_mcore(tmp_path / "other", tmp_path / "mcore")
    assert begun.exists()


def test_another_config_is_refused(convert: Convert, tmp_path: Path, begun: Path) -> None:
    change_config(tmp_path / "hf", rope_theta=5e5)
    with pytest.raises(InputError, match="unfinished conversion of another source, config or layout"):
        convert.to_mcore(tmp_path / "hf", tmp_path / "mcore")
    assert begun.exists()


def test_a_damaged_journal_is_refused(convert: Convert, tmp_path: Path, begun: Path) -> None:
    (begun / ".journal.jsonl").write_bytes(b"{}\n")
    with pytest.raises(InputError, match=r"\.journal\.jsonl: damaged"):
        convert.to_mcore(tmp_path / "hf", tmp_path / "mcore")


def test_a_foreign_folder_is_left_alone(convert: Convert, tmp_path: Path) -> None:
    write_folder(tmp_path / "hf")
    (tmp_path / "mcore.partial").mkdir()
    (tmp_path / "mcore.partial" / "mine").write_text("x")
    with pytest.raises(InputError, match=r"mcore\.partial: exists and is no unfinished conversion"):
        convert.to_mcore(tmp_path / "hf", tmp_path / "mcore")
    assert (tmp_path / "mcore.partial" / "mine").exists()


def test_two_at_once_are_refused(convert: Convert, tmp_path: Path, begun: Path) -> None:
    journal = (begun / ".journal.jsonl").open("a+b")
    fcntl.flock(journal, fcntl.LOCK_EX)
    with journal, pytest.raises(InputError, match="another process is converting into it"):
        convert.to_mcore(tmp_path / "hf", tmp_path / "mcore")
    assert begun.exists()
