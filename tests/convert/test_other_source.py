"""Other weights under the same sizes and times, as a copy of another run can have them: an unfinished result
takes all of them, a finished one is refused."""

import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from apriel_mcore.convert import average, report, with_images
from apriel_mcore.convert.journal import Journal
from apriel_mcore.convert.report import Report
from apriel_mcore.errors import InputError
from tests.convert.conftest import Convert
from tests.convert.folders import write_folder, write_tensors

SHARD = 100_000
"""Bytes: several files."""
type Call = Callable[[Path], Report]


class Stop(Exception):
    """Something other than a refusal."""


def interrupted(call: Call, target: Path) -> None:
    """Two parts of the result are finished, the third never is."""
    append, count = Journal._append, [0]

    def counting(journal: Journal, record: object) -> None:
        count[0] += 1
        if count[0] > 3:  # the job's own line comes first
            raise Stop
        append(journal, record)  # pyright: ignore[reportArgumentType]

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stop):
        patch.setattr(Journal, "_append", counting)
        call(target)


def swap(one: Path, other: Path) -> None:
    """`one` holds the weights of `other`; sizes and times stay."""
    files = [*one.glob("*.safetensors"), *one.glob("__*.distcp")]
    assert files
    for path in files:
        status, content = path.stat(), (other / path.name).read_bytes()
        assert len(content) == status.st_size
        path.write_bytes(content)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    kept, others = report.read(one), report.read(other)
    if kept is not None and others is not None:  # its digests would tell; a run's checkpoint has none
        report.write(msgspec.structs.replace(kept, tensors=others.tensors), one)


def weights(folder: Path) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes()
        for pattern in ("*.safetensors", "__*.distcp")
        for path in folder.glob(pattern)
    }


@pytest.fixture(params=["to_mcore", "to_hf", "with_images", "average"])
def case(request: pytest.FixtureRequest, convert: Convert, tmp_path: Path) -> tuple[Call, Path, Path]:
    """A conversion of a model, where it reads it, and another model like it."""
    write_folder(tmp_path / "like", llava=True, num_files=3)
    for name, factor in (("a", 1), ("b", 2), ("c", 3)):
        tensors = write_folder(tmp_path / name)
        write_tensors(tmp_path / name, {key: weight * factor for key, weight in tensors.items()}, 1)
        convert.to_mcore(tmp_path / name, tmp_path / f"mcore_{name}")
    a, b, c = (tmp_path / f"mcore_{name}" for name in "abc")
    calls: dict[str, Call] = {
        "to_mcore": lambda out: convert.to_mcore(tmp_path / "a", out),
        "to_hf": lambda out: convert.to_hf(a, out, max_file_bytes=SHARD),
        "with_images": lambda out: with_images.convert(tmp_path / "a", tmp_path / "like", out),
        "average": lambda out: average.convert([a, c], out, like=None, dtype=None, max_file_bytes=SHARD),
    }
    folders = (tmp_path / "a", tmp_path / "b") if request.param in ("to_mcore", "with_images") else (a, b)
    return calls[request.param], *folders


def test_an_unfinished_result_is_of_one_source(case: tuple[Call, Path, Path], tmp_path: Path) -> None:
    call, source, other = case
    interrupted(call, tmp_path / "out")
    swap(source, other)
    assert call(tmp_path / "out").parts_taken_over == 0
    call(tmp_path / "straight")
    assert weights(tmp_path / "out") == weights(tmp_path / "straight")


def test_a_finished_result_is_of_another_source(case: tuple[Call, Path, Path], tmp_path: Path) -> None:
    call, source, other = case
    call(tmp_path / "out")
    before = weights(tmp_path / "out")
    assert call(tmp_path / "out").found_finished
    swap(source, other)
    with pytest.raises(InputError, match=r"out: was finished before, and .* holds another .* since; remove"):
        call(tmp_path / "out")
    assert weights(tmp_path / "out") == before
