"""The one door to the `datasets` package and its Parquet reader; imported when a source needs them."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from apriel_mcore.config.schema import HuggingFaceSource
from apriel_mcore.errors import InputError

_INSTALL = "install the extra `hub` (`uv pip install 'apriel-mcore[hub]'`)"
_OFFLINE = 'download its files and name them in a source of kind = "files" with the same layout'


def require(source: HuggingFaceSource) -> None:
    """InputError with the remedy when the package is missing; asks no server."""
    if importlib.util.find_spec("datasets") is None:
        raise InputError(f"{source.id}: needs the `datasets` package: {_INSTALL}, or {_OFFLINE}")


def read(source: HuggingFaceSource) -> Iterator[tuple[str, Any]]:
    """Rows of one split at the pinned revision, from the local cache of `datasets` if it has them.

    InputError when the package is missing, the hub cannot be reached, or it has no such data.
    """
    require(source)
    import datasets  # pyright: ignore[reportMissingImports]

    name = f"{source.id}@{source.revision[:8]}"
    try:
        rows = datasets.load_dataset(**_request(source))
    except (OSError, ValueError, RuntimeError) as error:  # hub and cache errors derive from these
        found = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{name}: cannot be loaded: {found}; {_OFFLINE}") from error
    for number, row in enumerate(rows, start=1):
        yield f"{name}:{number}", row


def _request(source: HuggingFaceSource) -> dict[str, Any]:
    """Arguments of load_dataset."""
    if source.files:
        root = f"hf://datasets/{source.id}@{source.revision}"
        return {"path": "json", "data_files": [f"{root}/{name}" for name in source.files], "split": "train"}
    return {
        "path": source.id,
        "name": source.config,
        "split": source.split,
        "revision": source.revision,
    }


def read_parquet(file: Path) -> Iterator[tuple[str, Any]]:
    """Rows of a local Parquet file, a batch in memory at a time."""
    try:
        import pyarrow  # pyright: ignore[reportMissingImports]
        import pyarrow.parquet  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise InputError(f"{file}: reading Parquet needs `pyarrow`: {_INSTALL}") from None
    try:
        number = 0
        for batch in pyarrow.parquet.ParquetFile(file).iter_batches(batch_size=1024):
            for row in batch.to_pylist():
                number += 1
                yield f"{file}:{number}", row
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{file}: cannot be read as Parquet: {error}") from error
