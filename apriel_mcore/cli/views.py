"""`apriel dash`, `report`, `compare` and `trace`: look at runs."""

import argparse
from pathlib import Path

from apriel_mcore.cli.arguments import Commands


def add(commands: Commands) -> None:
    """Add `dash`, `report`, `compare` and `trace`."""
    dash = commands.add_parser("dash", help="live page of one or more runs, on loopback")
    dash.add_argument("run_dirs", type=Path, nargs="+", metavar="RUN_DIR", help="or a folder of runs")
    dash.add_argument("--port", type=int, default=8900, help="default: 8900; 0: any that is free")
    dash.add_argument("--token-file", type=Path, help="a token that stays (default: a new one)")
    dash.set_defaults(door=_dash)
    report = commands.add_parser("report", help="write report.html of a run")
    report.add_argument("run_dir", type=Path)
    report.set_defaults(door=_report)
    compare = commands.add_parser("compare", help="print a table of several runs")
    compare.add_argument("run_dirs", type=Path, nargs="+")
    compare.set_defaults(door=_compare)
    trace = commands.add_parser("trace", help="timeline of a run as a file for ui.perfetto.dev")
    trace.add_argument("run_dir", type=Path)
    trace.add_argument("--steps", type=int, nargs=2, metavar=("FIRST", "LAST"), help="default: all")
    trace.add_argument("--out", type=Path, metavar="FILE", help="default: RUN_DIR/trace.json.gz")
    trace.set_defaults(door=_trace)


def _dash(args: argparse.Namespace) -> None:
    from apriel_mcore.views import dash

    dash.serve(args.run_dirs, port=args.port, token=dash.read_token(args.token_file))


def _report(args: argparse.Namespace) -> None:
    from apriel_mcore.views import report

    print(report.write(args.run_dir))


def _compare(args: argparse.Namespace) -> None:
    from apriel_mcore.views import compare

    print(compare.table(args.run_dirs))


def _trace(args: argparse.Namespace) -> None:
    from apriel_mcore.views import trace

    print(trace.write(args.run_dir, steps=args.steps, out=args.out))
