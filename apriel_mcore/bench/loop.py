"""How many rollouts a second does the whole loop train, and how soon is the model as good, against TRL?

    the recipe's task, a fixed wall time:  TRL's GRPOTrainer in an environment of its own, then `apriel train`

    rollouts_per_s, trl.rollouts_per_s    trained, from the first prompt to the end of the last step
    ratio_to_trl                          ours over theirs
    signal_per_s, signal_ratio_to_trl     trained in groups whose rewards differ: ours are all, by the filter
    time_to_trl_reward_ratio              from when on our answers are as good as TRL's last, over TRL's time
    judged_per_s, judged_ratio_to_trl     also those without a learning signal, which TRL trains all the same

Model, prompts, mixture, group size, output limit, judges, rewards, optimizer and machine are the same. Both
clocks start when the first prompt is sent (`setup_s` is before). Rewards are task rewards of all that was
judged, weighted by the mixture (peers/curve.py).
"""

import argparse
import math
import tempfile
from pathlib import Path

from apriel_mcore.bench.door import Numbers
from apriel_mcore.bench.peers import ours, trl_run
from apriel_mcore.bench.peers.curve import (
    Trail,
    judged_per_s,
    reached,
    reward_curve,
    rollouts_per_s,
    signal_per_s,
)
from apriel_mcore.config.load import load
from apriel_mcore.config.schema import RunConfig
from apriel_mcore.errors import InputError

_TUNING = trl_run.Tuning()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Task, wall time, and the peer's settings."""
    parser.add_argument("--recipe", type=Path, default=Path("recipes/quickstart.toml"))
    parser.add_argument("--minutes", type=float, default=12.0, help="of training, each (default: 12)")
    parser.add_argument("--peer-python", type=Path, default=Path(".venv-peers/bin/python"))
    parser.add_argument("--engine", choices=trl_run.ENGINES, default=_TUNING.engine, help="TRL's generation")
    parser.add_argument(
        "--precision", choices=trl_run.PRECISIONS, default=_TUNING.precision, help="TRL's trainer"
    )
    parser.add_argument("--batch", type=int, default=_TUNING.batch, help="TRL's micro-batch")
    parser.add_argument("--threads", type=int, default=_TUNING.threads, help="TRL's")
    parser.add_argument("--keep", type=Path, help="folder for both runs' files (default: removed)")
    parser.add_argument("--only-trl", action="store_true", help="for tuning TRL's settings")


def run(args: argparse.Namespace) -> Numbers:
    """The whole loop against TRL's GRPOTrainer on the same task."""
    if args.keep and args.keep.exists():
        raise InputError(f"--keep {args.keep}: exists; name a new folder")
    config = load(args.recipe, [])
    if config.advantage.filter_on == "off":
        raise InputError(
            f'{args.recipe}: advantage.filter_on = "off": groups without a signal would count as having one; '
            'give a recipe with "shaped_reward"'
        )
    tuning = trl_run.Tuning(
        engine=args.engine, precision=args.precision, batch=args.batch, threads=args.threads
    )
    seconds = 60 * args.minutes
    with tempfile.TemporaryDirectory(prefix="apriel-peers-", dir=".") as scratch:
        folder: Path = args.keep or Path(scratch)
        theirs = trl_run.train(config, tuning, args.peer_python, folder / "trl", seconds=seconds)
        numbers = settings_of(tuning) | _of(config, theirs, prefix="trl.")
        if args.only_trl:
            return numbers
        mine = ours.train(args.recipe, folder / "ours", seconds=seconds)
    return numbers | _of(config, mine, prefix="") | comparison(config, mine, theirs)


def settings_of(tuning: trl_run.Tuning) -> Numbers:
    """Beside the figures, how they came about."""
    return {
        "trl.engine": tuning.engine,
        "trl.precision": tuning.precision,
        "trl.batch": float(tuning.batch),
        "trl.threads": float(tuning.threads),
    }


def comparison(config: RunConfig, mine: Trail, theirs: Trail) -> Numbers:
    """The ratios; above 1, ours trains more a second; below 1, ours is sooner as good."""
    size = config.train.groups_per_step
    last = reward_curve(theirs.groups, config.ratios, groups_per_step=size)[-1]
    signal = signal_per_s(theirs.steps)
    when = reached(reward_curve(mine.groups, config.ratios, groups_per_step=size), last.reward)
    return {
        "ratio_to_trl": rollouts_per_s(mine.steps) / rollouts_per_s(theirs.steps),
        "signal_ratio_to_trl": signal_per_s(mine.steps) / signal if signal else math.inf,
        "judged_ratio_to_trl": judged_per_s(mine) / judged_per_s(theirs),
        "time_to_trl_reward_s": when,
        "time_to_trl_reward_ratio": when / last.seconds,
    }


def _of(config: RunConfig, trail: Trail, *, prefix: str) -> Numbers:
    curve = reward_curve(trail.groups, config.ratios, groups_per_step=config.train.groups_per_step)
    numbers = {
        "rollouts_per_s": rollouts_per_s(trail.steps),
        "signal_per_s": signal_per_s(trail.steps),
        "judged_per_s": judged_per_s(trail),
        "steps": float(len(trail.steps)),
        "seconds": trail.steps[-1].seconds,
        "setup_s": trail.setup_s,
    }
    if curve:
        numbers |= {"first_reward": curve[0].reward, "last_reward": curve[-1].reward}
    return {f"{prefix}{key}": value for key, value in numbers.items()}
