"""`apriel pool`: the servers of a running run."""

import argparse
from pathlib import Path

from apriel_mcore.cli.arguments import Commands


def add(commands: Commands) -> None:
    """Add `pool list|add|drain`."""
    pool = commands.add_parser("pool", help="show, add or drain rollout servers while a run goes on")
    actions = pool.add_subparsers(required=True, metavar="ACTION")
    shown = actions.add_parser("list", help="every server, its state and what it has done")
    added = actions.add_parser("add", help="one more server; it serves once it has the current weights")
    drained = actions.add_parser("drain", help="a server answers what it was asked, and goes")
    for action, door in ((shown, _list), (added, _add), (drained, _drain)):
        action.add_argument("run_dir", type=Path)
        action.set_defaults(door=door)
    added.add_argument("url", nargs="?", help="http://HOST:PORT of a running one (default: a new local one)")
    drained.add_argument("name", help="as `apriel pool list` shows it")
    for action in (added, drained):
        action.add_argument("--timeout", type=float, default=900.0, help="seconds to wait (default: 900)")


def _list(args: argparse.Namespace) -> None:
    from apriel_mcore.pool_door import show_servers

    show_servers(args.run_dir)


def _add(args: argparse.Namespace) -> None:
    from apriel_mcore.pool_door import grow

    grow(args.run_dir, args.url, timeout_s=args.timeout)


def _drain(args: argparse.Namespace) -> None:
    from apriel_mcore.pool_door import shrink

    shrink(args.run_dir, args.name, timeout_s=args.timeout)
