"""When is the run's state saved, what belongs to it, which saves stay, and which one does a run resume from?

Model, optimizer, feed: one step, one folder, written while training goes on (mcore/background_save.py).
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

from apriel_mcore import checkpoint_folder
from apriel_mcore.config.schema import Checkpoint
from apriel_mcore.obs.spans import span


class SnapshotFeed(Protocol):
    """The part of a feed that a checkpoint saves."""

    def snapshot(self) -> dict[str, Any]:
        """State that belongs to the weights of now."""
        ...


class Saver(Protocol):
    """Writes one checkpoint at a time, in the background."""

    def begin(self, step: int, loop_state: dict[str, Any]) -> None:
        """Take the state of now; it is written while training goes on."""
        ...

    def advance(self, *, wait: bool) -> bool:
        """True when this call completed a checkpoint; raises what broke it. `wait` until it is complete."""
        ...


class RankFiles(Protocol):
    """What ranks need to agree on files that each of them sees (mcore/parallel.py's Ranks)."""

    @property
    def world(self) -> int:
        """This rank's number."""
        ...

    @property
    def is_first(self) -> bool:
        """Moves and removes files."""
        ...

    def broadcast(self, payload: bytes) -> bytes:
        """The first rank's payload."""
        ...

    def gather(self, payload: bytes) -> list[bytes]:
        """Every rank's payload."""
        ...


class Checkpoints:
    """Saves on every rank, every `settings.every` steps and at the end."""

    def __init__(
        self,
        settings: Checkpoint,
        *,
        num_steps: int,
        last_saved: int,
        feed: SnapshotFeed,
        saver: Saver,
        prune: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._num_steps = num_steps
        self._last = last_saved
        """Step of the checkpoint that was begun last."""
        self._feed = feed
        self._saver = saver
        self._prune = prune

    @span("checkpoint")
    def save_if_due(self, step: int) -> None:
        """Begin to save at the configured steps, complete what is written; wait after the last one."""
        if step == self._num_steps:
            self.save(step)
        elif step % self._settings.every == 0:
            self._begin(step)
        else:
            self._advance(wait=False)

    def save(self, step: int) -> None:
        """Save now, unless this step is saved already; complete when this returns."""
        self._begin(step)
        self._advance(wait=True)

    def _begin(self, step: int) -> None:
        if step == self._last:
            return
        self._advance(wait=True)
        self._saver.begin(step, {"step": step, "feed": self._feed.snapshot()})
        self._last = step

    def _advance(self, *, wait: bool) -> None:
        """Older ones go once a new one is whole and verified."""
        if self._saver.advance(wait=wait):
            self._prune()


def best_steps(accuracy: Mapping[int, Mapping[str, float]], root: Path, count: int) -> set[int]:
    """Steps of the `count` saved checkpoints with the highest mean over domains, the later one of equals.

    `accuracy`: held-out, by step and domain. One that lacks a domain which another has is not
    among them.
    """
    saved = {checkpoint_folder.step_of(folder) for folder in checkpoint_folder.complete(root)}
    known = {step: accuracy[step] for step in saved & accuracy.keys()}
    rated = known.keys() - missing_domains(known).keys()
    ranked = sorted(rated, key=lambda step: (fmean(known[step].values()), step), reverse=True)
    return set(ranked[:count])


def missing_domains(accuracy: Mapping[int, Mapping[str, float]]) -> dict[int, list[str]]:
    """Of each step that lacks some, the domains that other steps have: its mean is of other problems."""
    domains = sorted({name for of in accuracy.values() for name in of})
    return {
        step: missing
        for step, of in accuracy.items()
        if (missing := [name for name in domains if name not in of])
    }


def newest_healthy(root: Path, ranks: RankFiles, tell: Callable[[str], None]) -> Path | None:
    """The checkpoint to resume from: the newest one whose files are what was written. Collective.

    Damaged ones are set aside, and `tell` is told on the first rank; None when nothing is left.
    """
    seen = [folder.name for folder in checkpoint_folder.complete(root)]
    names = json.loads(ranks.broadcast(json.dumps(seen).encode()))
    for folder in [root / name for name in reversed(names)]:
        defects = _defects_seen_by_all(folder, ranks)
        if not defects:
            return folder
        if ranks.is_first:
            aside = checkpoint_folder.set_aside(folder)
            shown = "; ".join(defects[:3])
            tell(f"{folder}: damaged ({shown}); set aside as {aside.name}, the one before is taken")
    return None


def _defects_seen_by_all(folder: Path, ranks: RankFiles) -> list[str]:
    """Each rank reads a part of the files."""
    num_ranks = len(ranks.gather(b""))
    mine = checkpoint_folder.defects(folder, part=ranks.world, num_parts=num_ranks)
    found_R = ranks.gather(json.dumps(mine).encode())
    return sorted({defect for found in found_R for defect in json.loads(found)})
