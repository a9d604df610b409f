"""When is the run's state saved, and what belongs to it? Model, optimizer, feed: one step, one folder."""

from collections.abc import Callable
from typing import Any, Protocol

from apriel_mcore.config.schema import Checkpoint


class SnapshotFeed(Protocol):
    """The part of a feed that a checkpoint saves."""

    def snapshot(self) -> dict[str, Any]:
        """State that belongs to the weights of now."""
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
        save: Callable[[int, dict[str, Any]], None],
        prune: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._num_steps = num_steps
        self._saved = last_saved
        self._feed = feed
        self._save = save
        self._prune = prune

    def save_if_due(self, step: int) -> None:
        """Save at the configured steps and after the last one."""
        if step % self._settings.every == 0 or step == self._num_steps:
            self.save(step)

    def save(self, step: int) -> None:
        """Save now, unless this step is saved already; older ones go once the new one is whole."""
        if step == self._saved:
            return
        self._save(step, {"step": step, "feed": self._feed.snapshot()})
        self._saved = step
        self._prune()
