"""One trainer rank, from its start to its exit code: `python -m apriel_mcore.train RUN_DIR ATTEMPT RECIPE`.

torchrun starts this once per rank. The first rank also owns the rollout servers, the judges and the
files; whatever ends it, they end with it.
"""

import json
import os
import signal
import sys
import traceback
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from apriel_mcore.config.load import load
from apriel_mcore.errors import AprielError, Preempted
from apriel_mcore.processes import die_with_parent
from apriel_mcore.rundir import RunDir


def main() -> None:
    """Run the rank and leave its outcome for the launcher; a stop on request is a success to torchrun."""
    run_dir, attempt, recipe = RunDir(Path(sys.argv[1])), int(sys.argv[2]), Path(sys.argv[3])
    rank = int(os.environ["RANK"])
    die_with_parent()
    signal.signal(signal.SIGTERM, _leave)
    _redirect_output(run_dir.log(f"trainer-rank{rank}", attempt))
    code, message = _outcome(run_dir, attempt, recipe)
    if rank == 0 or code not in (0, Preempted.exit_code):
        _record(run_dir, rank, code, message)
    sys.exit(0 if code == Preempted.exit_code else code)


def _outcome(run_dir: RunDir, attempt: int, recipe: Path) -> tuple[int, str]:
    """Exit code and message of the rank's work; an error of ours is a message, a bug also a traceback."""
    try:
        _work(run_dir, attempt, recipe)
    except AprielError as error:
        traceback.print_exc()
        return error.exit_code, str(error)
    return 0, "done"


def _work(run_dir: RunDir, attempt: int, recipe: Path) -> None:
    from apriel_mcore import loop
    from apriel_mcore.build import build
    from apriel_mcore.rollout.event_loop import make_way
    from apriel_mcore.rollout.feed import StopRequested

    config = load(recipe)
    with ExitStack() as resources:
        parts = build(config, run_dir, attempt=attempt, resources=resources)
        make_way()  # libraries and problems are loaded now
        try:
            loop.run(
                config,
                learner=parts.learner,
                publisher=parts.publisher,
                feed=parts.feed,
                evaluator=parts.evaluator,
                log=parts.log,
                checkpoints=parts.checkpoints,
            )
        except StopRequested:
            parts.checkpoints.save(parts.learner.step)
            raise Preempted(
                f"stopped on request at step {parts.learner.step}; run the same command to continue"
            ) from None
        if parts.evaluator.gave_up:
            raise Preempted("stopped on request in the last evaluation; run the same command to repeat it")


def _leave(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(1)


def _redirect_output(log: Path) -> None:
    """What libraries print goes to this rank's log."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def _record(run_dir: RunDir, rank: int, code: int, message: str) -> None:
    """The first word counts: a rank that fails because another one failed does not overwrite it."""
    if rank != 0 and run_dir.outcome.exists():
        return
    partial = run_dir.outcome.with_suffix(f".rank{rank}")
    partial.write_text(json.dumps({"code": code, "message": message}), encoding="utf-8")
    partial.replace(run_dir.outcome)


if __name__ == "__main__":
    main()
