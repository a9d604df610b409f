"""Rows are the same from every place they can lie in; what cannot be read is named."""

import builtins
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from apriel_mcore.config.schema import FilesSource, HuggingFaceSource, WheelSource
from apriel_mcore.config.schema.layouts import MathColumns
from apriel_mcore.data import hub, rows
from apriel_mcore.data.item import Unusable
from apriel_mcore.errors import InputError

ROWS = [{"problem": "2 + 2", "answer": "4"}, {"problem": "3 + 1", "answer": "4"}]
REVISION = "0" * 40


def files(*paths: Path) -> FilesSource:
    return FilesSource(paths=tuple(map(str, paths)), layout=MathColumns())


def read(source: Any) -> list[Any]:
    return [row for _, row in rows.read(source)]


def test_json_lines_lists_and_compressed_files_hold_the_same_rows(tmp_path: Path) -> None:
    lines = "\n\n".join(map(json.dumps, ROWS)).encode()
    (tmp_path / "a.jsonl").write_bytes(lines)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines))
    (tmp_path / "a.json").write_text(json.dumps(ROWS))
    for name in ("a.jsonl", "a.jsonl.gz", "a.json"):
        assert read(files(tmp_path / name)) == ROWS
    places = [place for place, _ in rows.read(files(tmp_path / "a.jsonl", tmp_path / "a.json"))]
    assert [place.rpartition("/")[2] for place in places] == [
        "a.jsonl:1",
        "a.jsonl:3",
        "a.json:1",
        "a.json:2",
    ]


def test_parquet_holds_the_same_rows(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="the extra `hub` is not installed")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    assert read(files(tmp_path / "a.parquet")) == ROWS
    (tmp_path / "b.parquet").write_text("no")
    with pytest.raises(InputError, match=r"b\.parquet: cannot be read as Parquet"):
        read(files(tmp_path / "b.parquet"))


def test_the_hubs_package_reads_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder stands for the repository: the same call, without a network."""
    pytest.importorskip("datasets", reason="the extra `hub` is not installed")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "train.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    source = HuggingFaceSource(id=str(tmp_path / "repo"), revision=REVISION, layout=MathColumns())
    assert read(source) == ROWS
    with pytest.raises(InputError, match=r'cannot be loaded.*kind = "files"'):
        read(HuggingFaceSource(id=str(tmp_path / "repo"), split="x", revision=REVISION, layout=MathColumns()))


def test_a_missing_hub_package_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub.importlib.util, "find_spec", lambda name: None)
    source = HuggingFaceSource(id="org/name", revision=REVISION, layout=MathColumns())
    for use in (rows.require, read):
        with pytest.raises(
            InputError, match=r"org/name: needs the `datasets` package: install the extra `hub`"
        ):
            use(source)


def test_missing_parquet_support_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *args: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *args)

    (tmp_path / "a.parquet").write_bytes(b"")
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(InputError, match="needs `pyarrow`: install the extra `hub`"):
        read(files(tmp_path / "a.parquet"))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.json", "{", r"a\.json: not JSON"),
        ("a.json", '{"a": 1}', "does not hold a list"),
        ("a.csv", "a,b", "unknown format"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, content: str, words: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=words):
        read(files(tmp_path / name))


def test_a_line_that_is_not_json_is_one_unusable_row(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"a": 1}\n{oops\n"\xff"\n{"a": 2}\n')
    found = list(rows.read(files(tmp_path / "a.jsonl")))
    assert [place.rpartition(":")[2] for place, _ in found] == ["1", "2", "3", "4"]
    assert [row for _, row in found if not isinstance(row, Unusable)] == [{"a": 1}, {"a": 2}]
    assert {row.reason for _, row in found if isinstance(row, Unusable)} == {"not_json"}
    assert all(row.detail for _, row in found if isinstance(row, Unusable))


GZIP = gzip.compress(b'{"q": "1 + 1", "a": "2"}\n' * 3)


@pytest.mark.parametrize(
    "content",
    [GZIP[:-9], b"no", GZIP[:15] + b"\x00\x01" + GZIP[17:]],
    ids=["cut short", "no header", "other bytes"],
)
def test_a_broken_gzip_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.jsonl\.gz: not a whole gzip file: .*download it again"):
        read(files(tmp_path / "a.jsonl.gz"))


def test_missing_files_and_wheels_are_named_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file; correct `paths`"):
        rows.require(files(tmp_path / "none.jsonl"))
    with pytest.raises(InputError, match="no wheel named 'none'"):
        rows.require(WheelSource(wheel="none", member="x", layout=MathColumns()))
