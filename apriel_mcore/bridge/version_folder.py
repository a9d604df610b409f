"""What is a weight version that lies in a folder, and how does a reader know that it has all of it?

    version_000012/
      model-00001-of-00002.safetensors   one file for each pipeline stage of the trainer
      version.json                       version, files in order, and the digest of their bytes

The folder gets its name when all of it is written; nothing in it changes afterwards.
"""

import hashlib
import mmap
from collections.abc import Sequence
from pathlib import Path

import msgspec
from torch import Tensor

from apriel_mcore.bridge.arena import tensor_views
from apriel_mcore.bridge.receipt import summarize
from apriel_mcore.errors import BridgeError, InputError
from apriel_mcore.seams import Sent

MANIFEST = "version.json"


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What the trainer wrote."""

    version: int
    files: tuple[str, ...]
    sent: Sent


def file_name(stage: int, num_stages: int) -> str:
    """Of what a pipeline stage writes."""
    return f"model-{stage + 1:05}-of-{num_stages:05}.safetensors"


def joined(parts: Sequence[Sent], quantised: tuple[str, ...]) -> Sent:
    """All files, in order, as one; `quantised` in short cannot be joined and is said anew."""
    digests = "".join(part.digest for part in parts)
    return Sent(
        num_tensors=sum(part.num_tensors for part in parts),
        num_bytes=sum(part.num_bytes for part in parts),
        digest=hashlib.blake2b(digests.encode(), digest_size=16).hexdigest(),
        quantised=quantised,
    )


def read_version(folder: Path, version: int, digest: str) -> tuple[dict[str, Tensor], Sent]:
    """The tensors, in the files' pages, and what was read, whose digest is `digest`.

    BridgeError when it is another version or other bytes than the trainer announced, or not a version at all.
    """
    manifest = _manifest(folder)
    if (manifest.version, manifest.sent.digest) != (version, digest):
        raise BridgeError(
            f"{folder}: holds version {manifest.version} with digest {manifest.sent.digest}, announced was "
            f"version {version} with {digest}: does another run write there?"
        )
    views: dict[str, Tensor] = {}
    parts: list[Sent] = []
    for name in manifest.files:
        with (folder / name).open("rb") as file:
            # Private: torch asks for a writable buffer, and nothing may reach the trainer's file.
            content = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE)
        parts.append(summarize(content, where=str(folder / name)))
        views |= tensor_views(content, where=str(folder / name))
    read = joined(parts, manifest.sent.quantised)
    if read != manifest.sent:
        raise BridgeError(
            f"{folder}: version {version} was written as {manifest.sent}, this host reads {read}: damaged "
            "or changed since"
        )
    return views, read


def _manifest(folder: Path) -> Manifest:
    try:
        return msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
    except msgspec.DecodeError as error:
        raise InputError(f"{folder / MANIFEST}: not a version's manifest: {error}") from None
