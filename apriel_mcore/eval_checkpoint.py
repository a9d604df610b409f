"""`apriel eval`: how good is one checkpoint of a run? The training program, with no step left to take.

A scratch run directory holds nothing but the checkpoint; a run that is already at its last step publishes
its weights, evaluates, and ends.
"""

import re
import tempfile
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from apriel_mcore import checkpoint_folder, launcher, preflight, rundir
from apriel_mcore.config.schema import RunConfig
from apriel_mcore.errors import InputError
from apriel_mcore.obs.runlog import Event, read_events


def run(config: RunConfig, checkpoint: Path) -> Event:
    """Evaluate and print; returns the `eval` event. InputError when the folder is no checkpoint."""
    step = _step_of(checkpoint)
    finished = msgspec.structs.replace(config, train=msgspec.structs.replace(config.train, num_steps=step))
    with tempfile.TemporaryDirectory(prefix="apriel-eval-") as scratch:
        run_dir = rundir.RunDir(Path(scratch))
        preflight.check(finished, run_dir, tell=lambda line: None)
        rundir.prepare(run_dir, finished)
        (run_dir.checkpoints / checkpoint.name).symlink_to(checkpoint.resolve())
        launcher.train(finished, run_dir)
        event = next(e for e in reversed(read_events(run_dir.events)) if e["event"] == "eval")
    Console().print(_table(event, config))
    return event


def _step_of(checkpoint: Path) -> int:
    match = re.fullmatch(r"step_(\d+)", checkpoint.name)
    if not match or not (checkpoint / "state.json").is_file():
        raise InputError(
            f"--checkpoint {checkpoint}: not a checkpoint; give a folder RUN_DIR/checkpoints/step_N"
        )
    if found := checkpoint_folder.defects(checkpoint):
        raise InputError(f"--checkpoint {checkpoint}: damaged ({'; '.join(found[:3])}); choose another one")
    return int(match.group(1))


def _table(event: Event, config: RunConfig) -> Table:
    table = Table(title=f"held-out, step {event['step']}, mean {event['accuracy_mean']:.3f}")
    for name in ("domain", "accuracy", "tokens", "truncated", "best constant", "problems"):
        table.add_column(name, justify="left" if name == "domain" else "right")
    for domain in config.domains:
        if f"accuracy.{domain}" in event:
            table.add_row(
                domain,
                f"{event[f'accuracy.{domain}']:.3f}",
                f"{event[f'tokens_mean.{domain}']:.1f}",
                f"{event[f'truncated.{domain}']:.2f}",
                f"{event[f'constant.{domain}']:.3f}",
                str(event[f"count.{domain}"]),
            )
    return table
