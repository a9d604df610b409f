"""The two conversions with the settings that most tests want."""

from pathlib import Path
from typing import Any

import pytest

from apriel_mcore.config.schema import Parallel
from apriel_mcore.convert import to_hf, to_mcore
from apriel_mcore.convert.report import Report


class Convert:
    """Both directions, without the parity check."""

    def to_mcore(self, source: Path, target: Path, **options: Any) -> Report:
        """At one rank, in the folder's dtype."""
        settings: dict[str, Any] = {"parallel": Parallel(), "dtype": None, "probe": False}
        return to_mcore.convert(source, target, **settings | options)

    def to_hf(self, source: Path, target: Path, **options: Any) -> Report:
        """Into a single file, in the checkpoint's dtype."""
        settings: dict[str, Any] = {"like": None, "dtype": None, "max_file_bytes": 1 << 30, "probe": False}
        return to_hf.convert(source, target, **settings | options)


@pytest.fixture(scope="session")
def convert() -> Convert:
    """The two conversions."""
    return Convert()
