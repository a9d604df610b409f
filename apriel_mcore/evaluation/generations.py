"""Which answers have been generated already? One append-only file a model, found by content.

    key = sha256(model, prompt, sampling but its budget, number of the answer) -> text and tokens

Shape suffixes: _T tokens of an answer.

An answer of a larger budget serves every smaller one: its first b tokens are what a budget of b would have
sampled. One of a smaller budget does not serve a larger one, not even where it ended by itself: to keep those
and sample the others anew would favour short answers. A line that a kill cut short is taken back.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Self

import msgspec
import numpy as np

from apriel_mcore.errors import InputError
from apriel_mcore.types import Finish

_WIDTH = np.dtype("<u4")


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    """One sampled answer."""

    key: str
    max_tokens: int
    """The budget it was sampled under."""
    num_tokens: int
    text: str
    finish: Finish
    seconds: float
    pieces: bytes
    """One little-endian uint32 a token: its id, or where an endpoint hides ids, its length in UTF-8 bytes.
    Empty: the endpoint tells neither, and the answer cannot be cut."""

    @property
    def pieces_T(self) -> list[int]:
        """The numbers in `pieces`."""
        return np.frombuffer(self.pieces, _WIDTH).tolist()

    def is_cut_at(self, budget: int) -> bool:
        """Whether a budget of so many tokens would have ended it before it ended itself."""
        return self.num_tokens > budget or (self.num_tokens == budget and self.finish == "length")


def packed(numbers_T: tuple[int, ...] | list[int]) -> bytes:
    """What `Generation.pieces` holds."""
    return np.asarray(numbers_T, _WIDTH).tobytes()


def key_of(*parts: object) -> str:
    """The name of an answer by all that shapes its distribution, and its number."""
    return sha256(msgspec.json.encode(parts)).hexdigest()[:32]


class GenerationFile:
    """The answers of one model; a single process holds it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise InputError(
                f"{path}: another evaluation of this model writes to it; wait, or give another --out"
            ) from None
        self._places: dict[str, tuple[int, int, int]] = {}
        """Key to offset, length, and the largest budget that was sampled under."""
        self._end = self._read_places()
        os.truncate(self._file.fileno(), self._end)

    @classmethod
    @contextmanager
    def opened(cls, path: Path) -> Iterator[Self]:
        """The file, made when there is none; InputError while another process holds it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        found = cls(path)
        try:
            yield found
        finally:
            found._file.close()

    def __len__(self) -> int:
        """Answers on record."""
        return len(self._places)

    def find(self, key: str, *, max_tokens: int) -> Generation | None:
        """The answer of that name if it was sampled under at least this budget."""
        place = self._places.get(key)
        if place is None or place[2] < max_tokens:
            return None
        line = os.pread(self._file.fileno(), place[1], place[0])
        return msgspec.json.decode(line, type=Generation)

    def add(self, generation: Generation) -> None:
        """On record when this returns, also if the process is then killed."""
        line = msgspec.json.encode(generation) + b"\n"
        self._file.write(line)
        self._file.flush()
        self._places[generation.key] = (self._end, len(line), generation.max_tokens)
        self._end += len(line)

    def _read_places(self) -> int:
        """Index every whole line; the offset behind the last one."""
        offset = 0
        self._file.seek(0)
        for line in self._file:
            try:
                head = msgspec.json.decode(line, type=_Head)
            except msgspec.DecodeError:
                break
            if not line.endswith(b"\n"):
                break
            self._places[head.key] = (offset, len(line), head.max_tokens)
            offset += len(line)
        return offset


class _Head(msgspec.Struct, frozen=True):
    key: str
    max_tokens: int
