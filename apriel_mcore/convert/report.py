"""What was converted, and how do we know? conversion.json, beside every result.

The digest of a tensor (convert/digest.py) is that of its bytes in Hugging Face layout: `before` as read
from the source, `after` as read back from what was written, both equal when the dtype did not change.
"""

import hashlib
import time
from pathlib import Path
from typing import Literal, Self

import msgspec

from apriel_mcore import __version__
from apriel_mcore.bridge.layouts import Sizes
from apriel_mcore.bridge.tensorfile import Dtype
from apriel_mcore.errors import InputError

REPORT_FILE = "conversion.json"

Direction = Literal["hf-to-mcore", "mcore-to-hf", "with-images", "average"]


class TensorRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One HF tensor on its way."""

    name: str
    sizes: Sizes
    dtype_before: Dtype
    dtype_after: Dtype
    digest_before: str
    digest_after: str
    num_bytes: int
    """As written."""
    file: str
    """Holds it in the result."""
    seconds: float
    """Reading, writing and reading back, of the thread that did it; tensors that make up one parameter share
    its time by size."""


class Parity(msgspec.Struct, frozen=True, kw_only=True):
    """Log-probs of a fixed text in float32: Megatron from the checkpoint, transformers from the folder."""

    status: Literal["passed", "skipped"]
    reason: str = ""
    """Why it was skipped."""
    tokens: int = 0
    max_abs_diff: float = 0.0
    mean_abs_diff: float = 0.0
    seconds: float = 0.0


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be converted, and how."""

    direction: Direction
    source: str
    """As it was given; several are joined by spaces."""
    options: dict[str, str]
    digest: str
    """Of the source and the options: equal jobs give equal results."""

    @classmethod
    def of(
        cls, direction: Direction, source: Path | str, *, fingerprint: str, options: dict[str, str]
    ) -> Self:
        """The job of a source whose files have this fingerprint."""
        text = msgspec.json.encode((direction, fingerprint, options))
        return cls(
            direction=direction, source=str(source), options=options, digest=hashlib.sha256(text).hexdigest()
        )


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The whole conversion."""

    job: Job
    num_tensors: int
    num_bytes: int
    seconds: float
    """Of the call that finished."""
    peak_rss_bytes: int
    """Of its process."""
    parts_taken_over: int
    """Finished by an interrupted call, checked again by this one."""
    parity: Parity
    dropped: tuple[str, ...]
    """Tensors of other modalities, left behind."""
    tensors: tuple[TensorRecord, ...]
    files: dict[str, str] = {}
    """Digest of every other file of the result, and of those with tensors without their elements
    (results.py)."""
    found_finished: bool = False
    """By this call, which read it back; never in the file."""
    apriel_mcore: str = __version__
    time: float = msgspec.field(default_factory=time.time)
    """When it was done, seconds since the epoch."""

    @property
    def digests(self) -> dict[str, tuple[Dtype, str]]:
        """Dtype and digest of every tensor of the result."""
        return {record.name: (record.dtype_after, record.digest_after) for record in self.tensors}


def write(report: Report, folder: Path) -> None:
    """Put the report beside the result."""
    text = msgspec.json.format(msgspec.json.encode(report), indent=1)
    (folder / REPORT_FILE).write_bytes(text + b"\n")


def read(folder: Path) -> Report | None:
    """The report of an earlier conversion in a folder, if it has one; InputError when it is damaged."""
    path = folder / REPORT_FILE
    if not path.is_file():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=Report)
    except msgspec.DecodeError as error:
        raise InputError(f"{path}: damaged ({error}); remove it to convert without its digests") from None


def peak_rss() -> int:
    """Bytes: the most that this process ever had resident, mapped files included (Linux)."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("/proc/self/status has no VmHWM")
