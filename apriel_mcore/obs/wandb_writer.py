"""Numbers of a run at Weights & Biases, online or offline, in one run there however often it was resumed.

Steps are a metric of their own (`define_metric`): W&B ignores what is logged below its own step counter, and
a resumed run repeats steps. Online, a resumed run goes on under its id. Offline, W&B cannot resume: every
attempt writes a folder of its own, which begins with all that stands of earlier attempts, so that the newest
folder alone is the run: `wandb sync RUN_DIR/wandb/offline-run-... `.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from apriel_mcore.obs.runlog import Event

_LOGGED = ("step", "eval")


class WandbWriter:
    """Numbers of `step` and `eval` events, each under its own prefix."""

    def __init__(
        self,
        *,
        mode: Literal["offline", "online"],
        project: str,
        name: str,
        folder: Path,
        config: dict[str, Any],
        past: Sequence[Event],
    ) -> None:
        """`past` holds the events of earlier attempts."""
        import wandb

        self._past = [event for event in past if event["event"] in _LOGGED] if mode == "offline" else []
        self._run = wandb.init(
            mode=mode,
            project=project,
            name=name,
            dir=str(folder),
            config=config,
            id=_id_of(folder),
            resume="allow" if mode == "online" else None,
        )
        self._run.define_metric("*", step_metric="step")

    def write(self, event: Event) -> None:
        """Log the numbers of an event; when a run resumes offline, first those of earlier attempts."""
        if event["event"] == "resume":
            for old in self._past:
                if old["step"] <= event["step"]:
                    self._log(old)
        elif event["event"] in _LOGGED:
            self._log(event)

    def close(self, *, failed: bool) -> None:
        """Mark the run as finished or failed there; waits until all is sent or written."""
        self._run.finish(exit_code=int(failed))

    def _log(self, event: Event) -> None:
        numbers = {
            f"{event['event']}/{key}": value
            for key, value in event.items()
            if isinstance(value, int | float) and key not in ("step", "time")
        }
        self._run.log(numbers | {"step": event["step"]})


def _id_of(folder: Path) -> str:
    """The run's id there, drawn once: names of folders are not unique in a project."""
    file = folder / "wandb-id"
    if not file.exists():
        partial = file.with_suffix(".partial")
        partial.write_text(uuid4().hex[:12], encoding="utf-8")
        partial.replace(file)
    return file.read_text(encoding="utf-8")
