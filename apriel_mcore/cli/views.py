"""`apriel report` and `compare`: look at runs."""

import argparse
from pathlib import Path

from apriel_mcore.cli.arguments import Commands


def add(commands: Commands) -> None:
    """Add `report` and `compare`."""
    report = commands.add_parser("report", help="write report.html of a run")
    report.add_argument("run_dir", type=Path)
    report.set_defaults(door=_report)
    compare = commands.add_parser("compare", help="print a table of several finished runs")
    compare.add_argument("run_dirs", type=Path, nargs="+")
    compare.set_defaults(door=_compare)


def _report(args: argparse.Namespace) -> None:
    from apriel_mcore.obs import report

    print(report.write(args.run_dir))


def _compare(args: argparse.Namespace) -> None:
    from apriel_mcore.obs import compare

    print(compare.table(args.run_dirs))
