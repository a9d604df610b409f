"""Whose answers are measured? A checkpoint of ours, a Hugging Face folder, or a running endpoint.

checkpoint --tensor by tensor--> OUT/models/DIGEST   (kept until the evaluation is complete)
folder, checkpoint --sha256 of what shapes an answer--> digest: the name under which answers are kept
"""

import asyncio
import hashlib
import re
import shutil
from pathlib import Path
from typing import Literal

import msgspec

from apriel_mcore import checkpoint_folder
from apriel_mcore.config.schema import FolderModel, WheelModel
from apriel_mcore.convert import report
from apriel_mcore.data import model_files, wheels
from apriel_mcore.errors import InputError
from apriel_mcore.evaluation import endpoint

_SHARD_BYTES = 5_000_000_000
_SHAPING = re.compile(
    r".*\.safetensors|.*\.jinja|config\.json|generation_config\.json|tokenizer.*|vocab\.json|merges\.txt"
    r"|special_tokens_map\.json|added_tokens\.json|chat_template\.json"
)
"""Files of a model folder that have a say in what it answers."""


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """The model that is measured."""

    name: str
    kind: Literal["checkpoint", "folder", "endpoint"]
    where: str
    """Its folder or URL."""
    served: str = ""
    """An endpoint's name for it."""
    digest: str
    """Of its content; an endpoint's is that of its address and what it calls itself, for it shows no more."""


def checkpoint(folder: Path) -> Subject:
    """A checkpoint of training or of `apriel convert`; InputError when it is none or its files changed."""
    if not (folder / "metadata.json").is_file():
        raise InputError(
            f"--checkpoint {folder}: not a checkpoint; give RUN_DIR/checkpoints/step_N, or what "
            "`apriel convert hf-to-mcore` wrote"
        )
    return Subject(
        name=_name_of_checkpoint(folder),
        kind="checkpoint",
        where=str(folder),
        digest=_digest_of_checkpoint(folder),
    )


def folder(model: FolderModel | WheelModel) -> Subject:
    """A Hugging Face folder; InputError when a file is missing."""
    found = model_files.model_folder(model)
    files = sorted(file for file in found.iterdir() if _SHAPING.fullmatch(file.name))
    lines = [f"{file.name} {wheels.sha256_of(file)}" for file in files]
    return Subject(
        name=found.absolute().name, kind="folder", where=str(found), digest=_digest("folder", *lines)
    )


def at(url: str, served_model: str) -> Subject:
    """A running endpoint; InputError when it does not answer."""
    served, about = asyncio.run(endpoint.served_model(url, served_model))
    return Subject(
        name=served.replace("/", "-"),
        kind="endpoint",
        where=url,
        served=served,
        digest=_digest("endpoint", url, served, about),
    )


def model_of(subject: Subject, model: FolderModel | WheelModel, out: Path) -> Path:
    """The folder that servers load and prompts are rendered with.

    A checkpoint is converted first, in the dtype it has, or an interrupted conversion goes on; config and
    tokenizer are those that it carries, else those of `model`, the recipe's.
    """
    if subject.kind == "folder":
        return Path(subject.where)
    from apriel_mcore.convert import companions, to_hf  # torch: only a checkpoint needs it here

    source, target = Path(subject.where), converted(subject, out)
    target.parent.mkdir(parents=True, exist_ok=True)
    like = None if (source / companions.CARRIED).is_dir() else model_files.model_folder(model)
    to_hf.convert(source, target, like=like, dtype=None, max_file_bytes=_SHARD_BYTES, probe=False)
    return target


def forget(subject: Subject, out: Path) -> None:
    """Remove what was converted: its answers are on record."""
    shutil.rmtree(converted(subject, out), ignore_errors=True)


def converted(subject: Subject, out: Path) -> Path:
    """Where a checkpoint's folder lies while it is evaluated."""
    return out / "models" / subject.digest[:16]


def _name_of_checkpoint(folder: Path) -> str:
    path = folder.resolve()
    run = path.parent.parent.name if path.parent.name == "checkpoints" else path.parent.name
    return f"{run}-{path.name}"


def _digest_of_checkpoint(folder: Path) -> str:
    """Of its manifest, which lists the sha256 of every file and is compared with them; else of its files."""
    if (folder / checkpoint_folder.MANIFEST).is_file():
        if found := checkpoint_folder.defects(folder):
            raise InputError(f"--checkpoint {folder}: damaged ({'; '.join(found[:3])}); choose another one")
        return _digest("checkpoint", wheels.sha256_of(folder / checkpoint_folder.MANIFEST))
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name != report.REPORT_FILE)
    return _digest("checkpoint", *(f"{file.relative_to(folder)} {wheels.sha256_of(file)}" for file in files))


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
