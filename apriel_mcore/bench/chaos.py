"""What does a run lose when everything around it breaks? Seeded faults in real runs of a small model.

    `apriel train` (2 data ranks, Megatron-Core) --links--> 2 servers --> judges with sandboxes --> journal
        ^ faults, one after another, each after the run went on from the one before

    FAULT.count, .recovery_median_s, .recovery_max_s    from the fault to the end of the second step after it
    groups.*                                            what became of every finished group
    problems                                            invariants that did not hold; the command fails if any

Kinds come in shuffled cycles over all runs, each once before any comes again; one that finds nothing to
harm (no sandbox yet, a single checkpoint) comes again later. A full disk needs a file system of our own,
thus root: without one it is left out, and the table counts 0. Servers are breaking/server.py: real weights
and samples behind vLLM's routes, up in seconds. What a run that broke an invariant left behind is kept in
bench-results/chaos-SEED.
"""

import argparse
import asyncio
import math
import shutil
import statistics
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
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
KEPT = Path("bench-results")
RECOVERED_STEPS = 2
"""The first may have been composed before the fault; the second has what was in flight, or its successors."""
STEPS_PER_FAULT = RECOVERED_STEPS + 1
"""And one of peace before the next."""
MAX_TRIES = 30
"""Of a kind that finds nothing to harm, in a row."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this bench."""
    parser.add_argument("--faults", type=int, default=len(FAULTS), help="how many (default: each kind once)")
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="no fault after them (default: no limit)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of kinds, moments and victims")
    parser.add_argument("--steps", type=int, default=60, help="of each run, at most (default: 60)")
    parser.add_argument("--ranks", type=int, default=2, help="trainer ranks (default: 2)")
    parser.add_argument("--kinds", nargs="*", choices=FAULTS, default=[*FAULTS], help="default: all")


def run(args: argparse.Namespace) -> Numbers:
    """Runs under faults until enough were done; each run is brought to its end and looked into."""
    with tempfile.TemporaryDirectory(prefix="apriel-chaos-", ignore_cleanup_errors=True) as folder:
        return asyncio.run(_play(args, Path(folder)))


class Cycle:
    """Which kind comes next? Each once, in an order drawn anew, before any comes again."""

    def __init__(self, kinds: Sequence[str], random: Random) -> None:
        self._kinds = kinds
        self._random = random
        self._left: list[str] = []
        self._tries: Counter[str] = Counter()

    def next(self) -> str:
        """The next kind of this cycle."""
        self._left = self._left or self._random.sample(self._kinds, len(self._kinds))
        return self._left.pop()

    def done(self, kind: str) -> None:
        """It did harm."""
        self._tries[kind] = 0

    def put_back(self, kind: str) -> None:
        """It found nothing to harm: it comes again in this cycle. AprielError when it never does."""
        self._tries[kind] += 1
        if self._tries[kind] == MAX_TRIES:
            raise AprielError(f"{kind} found nothing to harm, {MAX_TRIES} times in a row")
        self._left.insert(0, kind)


class Tale:
    """What happened."""

    def __init__(self, kinds: Sequence[str], *, most: int, minutes: float) -> None:
        self._kinds = kinds
        self._most = most
        self._minutes = minutes
        self.start = time.monotonic()
        self.recovery_s: defaultdict[str, list[float]] = defaultdict(list)
        self.groups: Counter[str] = Counter()
        self.problems: list[str] = []
        self.runs = 0
        self.restarts = 0

    @property
    def num_faults(self) -> int:
        """So far."""
        return sum(map(len, self.recovery_s.values()))

    @property
    def is_enough(self) -> bool:
        """No fault is wanted any more."""
        return self.num_faults >= self._most or time.monotonic() - self.start > 60 * self._minutes

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
        numbers["seconds"] = time.monotonic() - self.start
        for kind in sorted(self._kinds):
            seconds = self.recovery_s[kind]
            numbers[f"{kind}.count"] = len(seconds)
            if not seconds:
                continue
            numbers[f"{kind}.recovery_median_s"] = statistics.median(seconds)
            numbers[f"{kind}.recovery_max_s"] = max(seconds)
        numbers |= {f"groups.{name}": count for name, count in self.groups.items()}
        return numbers | {"problems": len(self.problems)}


async def _play(args: argparse.Namespace, folder: Path) -> Numbers:
    random, tale = Random(args.seed), Tale(args.kinds, most=args.faults, minutes=args.minutes)
    world = World(folder)
    await world.open()
    cycle = Cycle([kind for kind in args.kinds if world.has_own_disk or kind != "disk_full"], random)
    try:
        while not tale.is_enough and not tale.problems:
            job = Job(
                world,
                RunDir(world.disk / f"run{tale.runs}"),
                seed=args.seed + tale.runs,
                steps=min(args.steps, STEPS_PER_FAULT * (args.faults - tale.num_faults) + 4),
                ranks=args.ranks,
            )
            try:
                await _one_run(world, job, random, tale, cycle)
            finally:
                job.end()
            tale.add(await asyncio.to_thread(verdict.judge, job, world.ledger), job)
            if not tale.problems:
                shutil.rmtree(job.run_dir.root)  # the disk is small
            print(f"run {tale.runs}: {job.attempts} attempts, {tale.num_faults} faults so far", flush=True)
    except AprielError as error:
        tale.problems.append(str(error))
        print((folder / "output.log").read_text(errors="replace")[-4000:])
    finally:
        if tale.problems:
            _keep(folder, KEPT / f"chaos-{args.seed}")
        await world.close()
    for problem in tale.problems:
        print(problem)
    if tale.problems:
        raise AprielError(f"{len(tale.problems)} invariants did not hold (above), seed {args.seed}")
    return tale.numbers()


async def _one_run(world: World, job: Job, random: Random, tale: Tale, cycle: Cycle) -> None:
    """A run to its end, under faults until there were enough."""
    while not await _steps(job, 1):
        if tale.is_enough:
            continue
        await asyncio.sleep(random.uniform(0.0, 1.0))
        kind, start = cycle.next(), time.monotonic()
        breaking = asyncio.create_task(FAULTS[kind](world, job, random))
        while not breaking.done():
            job.tend()
            await asyncio.sleep(_LOOK_S)
        if not breaking.result():
            cycle.put_back(kind)
            continue
        cycle.done(kind)
        print(f"  {start - tale.start:6.0f} s: {kind}", end="", flush=True)
        ended = await _steps(job, RECOVERED_STEPS)
        seconds = time.monotonic() - start
        tale.recovery_s[kind].append(seconds)
        print(f" {seconds:.1f} s", flush=True)
        if ended:
            return


def _keep(folder: Path, kept: Path) -> None:
    """What runs left behind, checkpoints aside: the file system that it lies on goes with us."""
    shutil.rmtree(kept, ignore_errors=True)
    unneeded = shutil.ignore_patterns("checkpoints", "filler*", "model", "*.so")
    shutil.copytree(folder, kept, ignore=unneeded)
    print(f"kept in {kept}")


async def _steps(job: Job, count: int) -> bool:
    """Until the run has taken so many steps more; True when it has come to its end instead."""
    wanted, start = job.num_steps_seen() + count, time.monotonic()
    while job.num_steps_seen() < wanted:
        if job.tend():
            return True
        if time.monotonic() - start > STUCK_S:
            raise AprielError(f"{job.run_dir.root}: no step within {STUCK_S:g} s")
        await asyncio.sleep(_LOOK_S)
    return False
