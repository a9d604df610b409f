"""What does a server's host remember of the weights that were sent to it?

    arena 0, arena 1: one is filled while the other is whole      NAME-i.safetensors
    a note beside each says what it holds, and is there only while that is whole      NAME-i.json

The files outlive the server process, and are used again by the next one that asks for the same layout.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
from torch import Tensor

from apriel_mcore.bridge.arena import Arena
from apriel_mcore.bridge.layouts import Sizes
from apriel_mcore.bridge.tensorfile import Dtypes, dtypes_of
from apriel_mcore.errors import AprielError
from apriel_mcore.seams import Sent


class Label(msgspec.Struct, frozen=True, kw_only=True):
    """Which weights: versions of two senders have nothing to do with each other."""

    sender: str
    version: int


class _Note(msgspec.Struct, frozen=True, kw_only=True):
    label: Label
    sent: Sent


class LocalCopy:
    """The two arenas of one tensor rank of one server."""

    def __init__(self, directory: Path, name: str, sizes: Mapping[str, Sizes], dtypes: Dtypes) -> None:
        """InputError when `directory` has no room for them."""
        directory.mkdir(parents=True, exist_ok=True)
        self._notes = [directory / f"{name}-{i}.json" for i in (0, 1)]
        self._arenas = [
            self._open(directory / f"{name}-{i}.safetensors", sizes, dtypes, self._notes[i]) for i in (0, 1)
        ]

    def fill(self, label: Label, write: Callable[[Mapping[str, Tensor]], Sent]) -> None:
        """Have `write` fill the arena that was not filled last, and note what it holds."""
        times = [note.stat().st_mtime_ns if note.exists() else -1 for note in self._notes]
        spare = times.index(min(times))
        self._notes[spare].unlink(missing_ok=True)
        note = _Note(label=label, sent=write(self._arenas[spare].views))
        partial = self._notes[spare].with_suffix(".partial")
        partial.write_bytes(msgspec.json.encode(note))
        partial.replace(self._notes[spare])

    def find(self, label: Label) -> tuple[Mapping[str, Tensor], Sent] | None:
        """The weights under this label, if one of the arenas holds them whole."""
        for path, arena in zip(self._notes, self._arenas, strict=True):
            if path.exists():
                note = msgspec.json.decode(path.read_bytes(), type=_Note)
                if note.label == label:
                    return arena.views, note.sent
        return None

    @staticmethod
    def _open(path: Path, sizes: Mapping[str, Sizes], dtypes: Dtypes, note: Path) -> Arena:
        """The file of an earlier process if it has this layout, else a new one."""
        try:
            arena = Arena.attach(path)
        except AprielError:  # none, or one that was cut short
            arena = None
        if arena and arena.dtypes == dtypes_of(sizes, dtypes) and arena.sizes == dict(sizes):
            return arena
        note.unlink(missing_ok=True)
        return Arena.create(path, sizes, dtypes)
