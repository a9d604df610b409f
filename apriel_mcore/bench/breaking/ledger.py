"""What do servers themselves say of their answers? A line for each, which no pool can talk them into."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import msgspec


class Entry(msgspec.Struct, frozen=True):
    """An answer, and the versions of the weights that its first and its last token came from."""

    answer: str
    first: int
    last: int


def key_of(tokens_T: Sequence[int], logprobs_T: Sequence[float]) -> str:
    """What tells an answer from all others."""
    return hashlib.blake2b(msgspec.json.encode([tokens_T, logprobs_T]), digest_size=16).hexdigest()


def read(path: Path) -> dict[str, list[Entry]]:
    """Entries by answer; of a server that was killed, a line may be torn."""
    truth: dict[str, list[Entry]] = {}
    for line in path.read_bytes().splitlines():
        try:
            entry = msgspec.json.decode(line, type=Entry)
        except msgspec.DecodeError:
            continue
        truth.setdefault(entry.answer, []).append(entry)
    return truth
