"""Which checkpoints of a run are whole, and which of them stay? Folders, and the manifest of each.

    step_000020.partial/  --all ranks wrote, read back, manifest, rename-->  step_000020/
                                            found damaged when a run resumes: step_000020.damaged/

The folder gets its name when it is complete. `integrity.json` is the manifest that Megatron-Core's own
loader verifies (SHA-256 of each file), with each file's size beside it.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path

import msgspec

from apriel_mcore.disk import sync_folder

MANIFEST = "integrity.json"
STATE_FILE = "state.json"
_NAME = re.compile(r"step_(\d+)")
_CHUNK = 1 << 22


class FileSum(msgspec.Struct, frozen=True):
    """What a file of a checkpoint must be."""

    num_bytes: int
    sha256: str


def folder_of(root: Path, step: int) -> Path:
    """Where the checkpoint of a step belongs."""
    return root / f"step_{step:06d}"


def partial_of(folder: Path) -> Path:
    """Where it is while it is being written."""
    return folder.with_name(folder.name + ".partial")


def step_of(folder: Path) -> int:
    """Optimizer steps behind a checkpoint."""
    return int(folder.name.removeprefix("step_"))


def complete(root: Path) -> list[Path]:
    """Sealed checkpoints by step; whether their files are still what was written, `defects` says."""
    found = [(int(name[1]), path) for path in root.glob("step_*") if (name := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found) if (path / MANIFEST).exists()]


def sum_of(path: Path) -> FileSum:
    """Size and digest of a file as the disk has it, not as it may linger in memory."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        forget_cached(file.fileno())
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
        return FileSum(file.tell(), digest.hexdigest())


def forget_cached(descriptor: int) -> None:
    """What is read next of a file that was synced comes from the disk."""
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def write_synced(path: Path, text: str) -> None:
    """A small file, on disk when this returns."""
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def seal(partial: Path, folder: Path, sums: Mapping[str, FileSum]) -> None:
    """Write the manifest of what the ranks wrote (`sums`) and of every other file there; then the name.

    An older checkpoint of that name is replaced.
    """
    others = {path.name: sum_of(path) for path in partial.iterdir() if path.name not in {*sums, MANIFEST}}
    files = dict(sorted({**sums, **others}.items()))
    manifest = {
        "algorithm": "sha256",
        "files": {name: one.sha256 for name, one in files.items()},
        "bytes": {name: one.num_bytes for name, one in files.items()},
    }
    write_synced(partial / MANIFEST, json.dumps(manifest, indent=2) + "\n")
    sync_folder(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    sync_folder(folder.parent)


def defects(folder: Path, *, part: int = 0, num_parts: int = 1) -> list[str]:
    """How the files of a sealed checkpoint differ from its manifest; nothing for a healthy one.

    Part `part` of `num_parts` looks into every `num_parts`-th file, so that ranks share the reading.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files = {name: FileSum(manifest["bytes"][name], sha256) for name, sha256 in manifest["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return [f"{MANIFEST}: unreadable ({error!r})"]
    if STATE_FILE not in files:
        return [f"{MANIFEST}: does not list {STATE_FILE}"]
    found = [_defect(folder / name, files[name]) for name in sorted(files)[part::num_parts]]
    return [defect for defect in found if defect]


def prune(root: Path, *, keep: int, best: Collection[int]) -> None:
    """Deletes all but the `keep` latest complete checkpoints and those of the steps in `best`; also what
    a broken save and a damaged checkpoint left. Only after a newer one is sealed; first rank only."""
    assert keep > 0
    surplus = [path for path in complete(root)[:-keep] if step_of(path) not in best]
    for folder in [*surplus, *root.glob("step_*.partial"), *root.glob("step_*.damaged")]:
        shutil.rmtree(folder)


def set_aside(folder: Path) -> Path:
    """Take a damaged checkpoint's name away; it stays to be looked at until the next one is saved."""
    aside = folder.with_name(folder.name + ".damaged")
    shutil.rmtree(aside, ignore_errors=True)
    folder.rename(aside)
    return aside


def _defect(path: Path, wanted: FileSum) -> str:
    try:
        size = path.stat().st_size
        if size != wanted.num_bytes:
            return f"{path.name}: {size} bytes, {wanted.num_bytes} were written"
        return "" if sum_of(path) == wanted else f"{path.name}: its content changed since it was written"
    except FileNotFoundError:
        return f"{path.name}: missing"
    except OSError as error:
        return f"{path.name}: unreadable ({error.strerror})"
