"""What was appended to a file of lines since the last look?"""

from pathlib import Path

_CHUNK = 1 << 22


class Tail:
    """Reads a growing file once, a piece at a time; a line counts when its newline is there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self.has_more = False
        """Whether the last look stopped before the end of the file."""

    def lines(self) -> list[bytes]:
        """Complete lines that are new, without their newlines: those of the next few MiB."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._offset)
            piece = file.read(_CHUNK)
            while piece and b"\n" not in piece and (further := file.read(_CHUNK)):
                piece += further
            self.has_more = bool(file.read(1))
        *whole, _ = piece.split(b"\n")
        self._offset += sum(map(len, whole)) + len(whole)
        return whole
