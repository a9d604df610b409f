"""`apriel bench NAME`: one module's numbers as a table and as JSON."""

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import time
from pathlib import Path
from typing import Protocol, cast

from rich.table import Table

from apriel_mcore.views.terminal import show

Numbers = dict[str, float | str]


class Bench(Protocol):
    """What every module in this folder offers."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Its own options."""
        ...

    def run(self, args: argparse.Namespace) -> Numbers:
        """Measure; flat names to numbers."""
        ...


def run(name: str, argv: list[str]) -> None:
    """Parse the bench's options, run it, show and store its numbers."""
    bench = cast(Bench, importlib.import_module(f"apriel_mcore.bench.{name}"))
    parser = argparse.ArgumentParser(prog=f"apriel bench {name}", description=bench.run.__doc__)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    bench.add_arguments(parser)
    args = parser.parse_args(argv)
    machine = _machine()
    numbers = bench.run(args) | machine
    _show(name, numbers)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")


def _machine() -> Numbers:
    """Where and when: `load` is what others asked of the cores when it began."""
    packages = {name: importlib.metadata.version(name) for name in ("torch", "megatron-core")}
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        **packages,
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _show(name: str, numbers: Numbers) -> None:
    table = Table(title=f"apriel bench {name}")
    table.add_column("number")
    table.add_column("value", justify="right")
    for key, value in numbers.items():
        table.add_row(key, f"{value:.4g}" if isinstance(value, float) else str(value))
    show(table)
