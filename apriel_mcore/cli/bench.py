"""`apriel bench`: measure one part of the system."""

import argparse

from apriel_mcore.cli.arguments import Commands

BENCHES = (
    "sampler",
    "reshard",
    "fp8",
    "publish",
    "verify",
    "step",
    "logprob",
    "parity",
    "convert",
    "convert_memory",
    "checkpoint",
    "fp8_training",
    "page",
    "load",
    "loop",
    "chaos",
)


def add(commands: Commands) -> None:
    """Add `bench NAME`, whose options the bench reads itself."""
    bench = commands.add_parser("bench", help="measure one part of the system")
    names = bench.add_subparsers(required=True, metavar="NAME")
    for name in BENCHES:
        names.add_parser(name, add_help=False).set_defaults(door=_bench, bench=name, reads_rest=True)


def _bench(args: argparse.Namespace) -> None:
    from apriel_mcore.bench import door

    door.run(args.bench, args.rest)
