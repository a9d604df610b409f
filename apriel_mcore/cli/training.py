"""`apriel train`: run a recipe, or continue its run."""

import argparse
import sys
from pathlib import Path

from apriel_mcore.cli.arguments import Commands, naming, recipe_command
from apriel_mcore.rundir import RunDir


def add(commands: Commands) -> None:
    """Add `train`."""
    train = recipe_command(commands, "train", "train a recipe, or continue the run in --run-dir", _train)
    train.add_argument("--run-dir", type=Path, help="default: runs/NAME")
    train.add_argument("--override", action="store_true", help="continue a run whose recipe changed")


def _train(args: argparse.Namespace) -> None:
    from apriel_mcore import launcher, preflight, rundir
    from apriel_mcore.config.load import load

    launcher.heed_early_stop()
    config = load(args.recipe, args.overrides)
    run_dir = RunDir(args.run_dir or Path("runs") / config.name)
    for remark in config.remarks():
        print(f"apriel: note: {remark}", file=sys.stderr)
    if not args.override:
        rundir.check_same_recipe(run_dir, config)
    rundir.check_resumable(run_dir, config)
    if rundir.is_finished(run_dir, config):
        _finish(run_dir)
        print(f"{run_dir.root}: finished; nothing was started. More steps: train.num_steps=N --override")
        return
    with naming(args.recipe):
        preflight.require_kernels(config)
        preflight.check(config, run_dir, tell=lambda line: None)
    with rundir.held(run_dir):
        rundir.prepare(run_dir, config)
        with naming(args.recipe):
            launcher.train(config, run_dir)
        _finish(run_dir)


def _finish(run_dir: RunDir) -> None:
    from apriel_mcore.views import report, summary

    report.write(run_dir.root)
    summary.show(run_dir)
