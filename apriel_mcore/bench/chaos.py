"""What does a run lose when everything around it breaks? Seeded faults in real runs of a small model.

    `apriel train` (2 data ranks, Megatron-Core) --links--> 2 servers --> judges with sandboxes --> journal
        ^ faults, one after another, each after the run went on from the one before

    FAULT.count, .recovery_median_s, .recovery_max_s    from the fault to the end of the next optimizer step
    groups.*                                            what became of every finished group
    problems                                            invariants that did not hold; the command fails if any

Servers are breaking/server.py: real weights and samples behind vLLM's routes, up in seconds. Faults that need
what is not there (a file system of our own: root) are left out, and the table says so.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path
from random import Random

from apriel_mcore.bench.breaking import verdict
from apriel_mcore.bench.breaking.faults import FAULTS
from apriel_mcore.bench.breaking.world import Job, World
from apriel_mcore.bench.door import Numbers
from apriel_mcore.errors import AprielError
from apriel_mcore.rundir import RunDir

_LOOK_S = 0.2
STUCK_S = 600.0
"""A run that takes no step for so long does not recover."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this bench."""
    parser.add_argument("--faults", type=int, default=20, help="how many (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="of kinds, moments and victims")
    parser.add_argument("--steps", type=int, default=30, help="optimizer steps of each run (default: 30)")
    parser.add_argument("--ranks", type=int, default=2, help="trainer ranks (default: 2)")
    parser.add_argument("--kinds", nargs="*", choices=FAULTS, default=[*FAULTS], help="default: all")


def run(args: argparse.Namespace) -> Numbers:
    """Runs under faults until enough were done; each run is brought to its end and looked into."""
    with tempfile.TemporaryDirectory(prefix="apriel-chaos-", ignore_cleanup_errors=True) as folder:
        return asyncio.run(_play(args, Path(folder)))


class Tale:
    """What happened."""

    def __init__(self) -> None:
        self.recovery_s: defaultdict[str, list[float]] = defaultdict(list)
        self.groups: Counter[str] = Counter()
        self.problems: list[str] = []
        self.runs = 0
        self.restarts = 0

    @property
    def num_faults(self) -> int:
        """So far."""
        return sum(map(len, self.recovery_s.values()))

    def add(self, account: verdict.Account, job: Job) -> None:
        """A run came to its end."""
        self.runs += 1
        self.restarts += job.attempts - 1
        for name in ("trained", "too_old", "left_over", "no_signal", "failed"):
            self.groups[name] += getattr(account, name)
        self.problems += [f"{job.run_dir.root.name}: {problem}" for problem in account.problems]

    def numbers(self) -> Numbers:
        """As a table."""
        numbers: Numbers = {"faults": self.num_faults, "runs": self.runs, "restarts": self.restarts}
        for kind, seconds in sorted(self.recovery_s.items()):
            numbers[f"{kind}.count"] = len(seconds)
            numbers[f"{kind}.recovery_median_s"] = statistics.median(seconds)
            numbers[f"{kind}.recovery_max_s"] = max(seconds)
        numbers |= {f"groups.{name}": count for name, count in self.groups.items()}
        return numbers | {"problems": len(self.problems)}


async def _play(args: argparse.Namespace, folder: Path) -> Numbers:
    random, tale = Random(args.seed), Tale()
    world = World(folder)
    await world.open()
    try:
        while tale.num_faults < args.faults and not tale.problems:
            job = Job(
                world,
                RunDir(world.disk / f"run{tale.runs}"),
                seed=args.seed + tale.runs,
                steps=args.steps,
                ranks=args.ranks,
            )
            try:
                await _one_run(world, job, random, tale, args)
            finally:
                job.end()
            tale.add(await asyncio.to_thread(verdict.judge, job, world.ledger), job)
            print(f"run {tale.runs}: {job.attempts} attempts, {tale.num_faults} faults so far", flush=True)
    except AprielError as error:
        tale.problems.append(str(error))
        print((folder / "output.log").read_text(errors="replace")[-4000:])
    finally:
        await world.close()
    for problem in tale.problems:
        print(problem)
    if tale.problems:
        raise AprielError(f"{len(tale.problems)} invariants did not hold (above), seed {args.seed}")
    return tale.numbers()


async def _one_run(world: World, job: Job, random: Random, tale: Tale, args: argparse.Namespace) -> None:
    """A run to its end, under faults."""
    kinds: list[str] = []
    while True:
        if await _next_step(job):
            return
        await asyncio.sleep(random.uniform(0.0, 1.0))
        kinds = kinds or random.sample(args.kinds, len(args.kinds))
        if tale.num_faults >= args.faults:
            continue
        kind, start = kinds.pop(), time.monotonic()
        breaking = asyncio.create_task(FAULTS[kind](world, job, random))
        while not breaking.done():
            job.tend()
            await asyncio.sleep(_LOOK_S)
        if not breaking.result():
            continue
        print(f"  {kind}", end="", flush=True)
        ended = await _next_step(job)
        seconds = time.monotonic() - start
        tale.recovery_s[kind].append(seconds)
        print(f" {seconds:.1f} s", flush=True)
        if ended:
            return


async def _next_step(job: Job) -> bool:
    """Until the run has taken a step more; True when it has come to its end instead."""
    seen, start = job.num_steps_seen(), time.monotonic()
    while job.num_steps_seen() <= seen:
        if job.tend():
            return True
        if time.monotonic() - start > STUCK_S:
            raise AprielError(f"{job.run_dir.root}: no step within {STUCK_S:g} s")
        await asyncio.sleep(_LOOK_S)
    return False
