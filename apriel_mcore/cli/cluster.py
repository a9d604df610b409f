"""`apriel launch`, `status`, `logs` and `stop`: a run as a SLURM job."""

import argparse
import sys
from pathlib import Path

from apriel_mcore.cli.arguments import Commands, recipe_command


def add(commands: Commands) -> None:
    """Add the commands of a launch."""
    launch = recipe_command(commands, "launch", "run a recipe as a SLURM job, through nemo-run", _launch)
    launch.add_argument("--cluster", type=Path, required=True, help="its file, as slurm/h100.toml")
    launch.add_argument(
        "--on", action="append", default=[], metavar="KEY=VALUE", help="change a key of the cluster's file"
    )
    launch.add_argument("--seeds", type=int, nargs="+", default=[], help="an array: one run for each seed")
    launch.add_argument("--override", action="store_true", help="continue a run whose recipe changed")
    launch.add_argument("--dry-run", action="store_true", help="print all that would be sent, send nothing")

    status = _launched(commands, "status", "where a launched run is")
    status.set_defaults(door=_status)
    logs = _launched(commands, "logs", "the end of a log of a launched run")
    logs.add_argument("process", nargs="?", default="node-0", help="job, node-K, trainer-rank0, server-0 ...")
    logs.add_argument("--follow", action="store_true", help="go on until the job has ended")
    logs.set_defaults(door=_logs)
    stop = _launched(commands, "stop", "end a launched run for good, after a checkpoint")
    stop.add_argument("--now", action="store_true", help="without a checkpoint")
    stop.set_defaults(door=_stop)


def _launched(commands: Commands, name: str, summary: str) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=summary)
    command.add_argument("name", help="the recipe's name, as it was launched from this folder")
    return command


def _launch(args: argparse.Namespace) -> None:
    from apriel_mcore.cluster import estimate, launch, site
    from apriel_mcore.cluster.folders import Launch
    from apriel_mcore.config.load import load

    config = load(args.recipe, args.overrides)
    for remark in config.remarks():
        print(f"apriel: note: {remark}", file=sys.stderr)
    order = launch.prepare(
        config,
        args.cluster,
        site.load(args.cluster, args.on),
        Launch(name=config.name, seeds=args.seeds, continues_changed=args.override),
    )
    estimate.require_fit(config)
    if args.dry_run:
        launch.show(order)
        return
    record = launch.submit(order)
    print(f"job {record.job}: {record.folder}\n`apriel status {record.name}` says where it is")


def _status(args: argparse.Namespace) -> None:
    from apriel_mcore.cluster import record, watch
    from apriel_mcore.cluster.transport import LoginNode

    found = record.find(args.name)
    print("\n".join(watch.status(found, LoginNode(found.site))))


def _logs(args: argparse.Namespace) -> None:
    from apriel_mcore.cluster import record, watch
    from apriel_mcore.cluster.transport import LoginNode

    found = record.find(args.name)
    for text in watch.logs(found, LoginNode(found.site), process=args.process, follow=args.follow):
        print(text, flush=True)


def _stop(args: argparse.Namespace) -> None:
    from apriel_mcore.cluster import record, watch
    from apriel_mcore.cluster.transport import LoginNode

    found = record.find(args.name)
    print(watch.stop(found, LoginNode(found.site), now=args.now))
