"""`apriel plan` and `calibrate`: how many GPUs, which split, how long?"""

import argparse
from pathlib import Path

from apriel_mcore.cli.arguments import Commands, recipe_command


def add(commands: Commands) -> None:
    """Add `plan` and `calibrate`."""
    plan = recipe_command(commands, "plan", "best split of N GPUs: step time, lag, cost", _plan)
    _plan_arguments(plan)
    calibrate = commands.add_parser("calibrate", help="what stands behind `apriel plan`")
    kinds = calibrate.add_subparsers(required=True, metavar="KIND")
    published = kinds.add_parser("published", help="fit three published H100 rows, judge by all others")
    published.set_defaults(door=_calibrate_published)
    machine = kinds.add_parser("machine", help="measure this machine's device, write a profile for `plan`")
    machine.add_argument("--out", type=Path, required=True, metavar="FILE", help="the profile, TOML")
    machine.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="default: cuda")
    machine.add_argument("--base", default="h100", help="profile that says what is not measured (h100)")
    machine.set_defaults(door=_calibrate_machine)
    host = kinds.add_parser("host", help="fit a CPU host to runs on it, judge the simulation by other runs")
    host.add_argument(
        "run_dirs", type=Path, nargs="+", metavar="RUN_DIR", help="with max_lag=0, and one above"
    )
    host.add_argument(
        "--against", type=Path, nargs="+", default=[], metavar="RUN_DIR", help="to be predicted"
    )
    host.set_defaults(door=_calibrate_host)


def _plan_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--gpus", type=int, nargs="+", default=[], help="one plan for each number")
    parser.add_argument("--as-is", action="store_true", help="the recipe's own split, layout and max_lag")
    parser.add_argument(
        "--max-lag", type=float, default=8.0, metavar="N", help="choose none above; the table goes on (8)"
    )
    parser.add_argument("--profile", default="h100", help="what ships, or a file (default: h100)")
    parser.add_argument("--lengths", type=Path, help="a run directory; or TOML: a table a domain")
    parser.add_argument("--weak", type=int, default=0, metavar="N", help="batch in proportion, recipe's at N")
    parser.add_argument(
        "--skew", type=float, nargs="+", default=[], help="also with these sigmas, last --gpus"
    )
    parser.add_argument("--html", type=Path, help="write a page with charts")


def _plan(args: argparse.Namespace) -> None:
    from apriel_mcore.planning import door

    door.plan(args)


def _calibrate_published(args: argparse.Namespace) -> None:
    from apriel_mcore.planning import door

    door.calibrate_published(args)


def _calibrate_machine(args: argparse.Namespace) -> None:
    from apriel_mcore.planning import door

    door.calibrate_machine(args)


def _calibrate_host(args: argparse.Namespace) -> None:
    from apriel_mcore.planning import door

    door.calibrate_host(args)
