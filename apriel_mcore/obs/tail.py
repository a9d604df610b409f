"""What was appended to a file of lines since the last look?"""

from collections.abc import Iterator
from pathlib import Path

_CHUNK = 1 << 24


class Tail:
    """Reads a growing file once; a line counts when its newline is there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def lines(self) -> Iterator[bytes]:
        """Complete lines that are new, without their newlines."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            rest = b""
            while chunk := file.read(_CHUNK):
                *whole, rest = (rest + chunk).split(b"\n")
                self._offset += sum(map(len, whole)) + len(whole)
                yield from whole
