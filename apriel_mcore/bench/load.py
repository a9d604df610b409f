"""How many rollouts a second can the first rank route, judge, write down and batch, and what does it add?

    4 servers, processes of their own, answers after a delay --HTTP--> pool -> judge -> journal -> batches

    full.rollouts_per_s      of groups that were judged and on disk, with `in_flight` requests out
    full.trained_per_s       of groups in batches that were taken, shaped and packed
    full.rss_growth_mib_per_min, full.rss_mib    of this process: slope of a line through the second half
    .bench_mib               of that, what these numbers are counted in: it does not grow
    half.added_p50_s, .added_p99_s    what a rollout took beyond its time on the server, until it was on disk,
                             without the wait for its siblings; `half.rate` rollouts a second are offered
    .http_p99_s, .judge_p99_s, .disk_p99_s    its parts: to the server and back; the line before it, and the
                             judge's; from the group's last verdict until the group is on disk
    .loop_lag_p99_s, .loop_lag_max_s    how late the feed's event loop wakes whom it should wake
    .no_core_share           share of the time in which the loop could run but had no core: of a busy machine
    .cpu_ms, .judge_cpu_ms, .servers_cpu_ms    CPU time of a rollout: this process, the judge's, the servers'

Everything but the servers' answers is the product: pool and HTTP client, judge's worker process, feed,
scheduler, journal with fsync, weights swapped and a snapshot taken as in a run. No trainer takes its share
of the cores.
"""

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import psutil
from numpy.typing import NDArray

from apriel_mcore.bench.door import Numbers
from apriel_mcore.bench.histogram import Histogram
from apriel_mcore.config.load import load
from apriel_mcore.config.schema import RunConfig, Verify
from apriel_mcore.data.controllers import controller_of
from apriel_mcore.data.packing import pack_step
from apriel_mcore.data.sampler import DomainScheduler, Ticket
from apriel_mcore.loss.advantage import to_samples
from apriel_mcore.loss.reward import shape_group
from apriel_mcore.obs import spans
from apriel_mcore.obs.timeline import Timeline
from apriel_mcore.rollout.ask import Asker
from apriel_mcore.rollout.event_loop import EventLoopThread, make_way
from apriel_mcore.rollout.feed import RolloutFeed
from apriel_mcore.rollout.journal import Journal
from apriel_mcore.rollout.keeper import Patience
from apriel_mcore.rollout.pool import ServerPool
from apriel_mcore.rollout.reference import NoScorer
from apriel_mcore.rollout.server import RemoteServer
from apriel_mcore.seams import Sampling, arena_offer
from apriel_mcore.types import Group, Message, Problem, Rollout
from apriel_mcore.verify.grade import VerifierPool

NUM_SERVERS = 4
GROUP_SIZE = 8
GROUPS_PER_STEP = 250
NUM_PROMPT_TOKENS = 128
NUM_TOKENS = 64
SNAPSHOT_EVERY = 20
WARM_UP_S = 5.0
FULL_DELAY_S = 1.0
"""Servers alone would finish in_flight / 1 s: more than is asked for, so that this side is the limit."""
_LAG_EVERY_S = 0.005
SLOWEST = 1.39
"""Mean of the slowest of a group's delays, over the mean delay; the group holds its place as long."""


class Finished(NamedTuple):
    """What this side added to one rollout."""

    end: float
    http_s: float
    judge_s: float


_answers: ContextVar[list[Finished]] = ContextVar("_answers")
"""Of the group that a task works on; the tasks of its rollouts inherit it."""


class TimedAsker(Asker):
    """Notes for each rollout what this side added to the server's time."""

    def __init__(self, pool: ServerPool, judge: VerifierPool) -> None:
        super().__init__(pool, judge, NoScorer())

    async def rollout(self, problem: Problem, sampling: Sampling) -> Rollout:
        """As Asker.rollout."""
        start = time.perf_counter()
        rollout = await super().rollout(problem, sampling)
        end = time.perf_counter()
        server_s = float(rollout.text.rpartition(" ")[2])
        _answers.get().append(Finished(end, rollout.seconds - server_s, end - start - rollout.seconds))
        return rollout

    async def group(self, ticket: Ticket, problem: Problem, recipe: RunConfig) -> Group | None:
        """As Asker.group; what a lost group took does not count."""
        group = await super().group(ticket, problem, recipe)
        if group is None:
            _answers.get().clear()
        return group


class Added:
    """What this side added to all rollouts that were finished, in memory that does not grow."""

    def __init__(self) -> None:
        self.total, self.http, self.judge, self.disk = (Histogram() for _ in range(4))

    def count(self, answers: Sequence[Finished]) -> None:
        """The rollouts of a group that is on disk now."""
        now, judged = time.perf_counter(), max((answer.end for answer in answers), default=0.0)
        for answer in answers:
            self.http.add(answer.http_s)
            self.judge.add(answer.judge_s)
            self.disk.add(now - judged)
            self.total.add(answer.http_s + answer.judge_s + now - judged)

    @property
    def num_bytes(self) -> int:
        """What our own bookkeeping occupies."""
        return sum(part.num_bytes for part in (self.total, self.http, self.judge, self.disk))

    def numbers(self) -> Numbers:
        """Percentiles of the sum and of its parts."""
        parts = {"http": self.http, "judge": self.judge, "disk": self.disk}
        return {
            "added_p50_s": self.total.percentile(50),
            "added_p99_s": self.total.percentile(99),
            **{f"{name}_p99_s": part.percentile(99) for name, part in parts.items()},
        }


class TimedFeed(RolloutFeed):
    """Notes when a group counts."""

    added = Added()
    """Of the groups since the last look."""

    async def _answer(self, ticket: Ticket) -> None:
        answers = list[Finished]()
        _answers.set(answers)
        await super()._answer(ticket)
        self.added.count(answers)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this bench."""
    parser.add_argument("--minutes", type=float, default=0.5, help="of each of the two parts")
    parser.add_argument("--in-flight", type=int, default=2000, help="requests at once")
    parser.add_argument("--half-rate", type=float, default=750.0, help="rollouts/s offered in part two")
    parser.add_argument("--part", choices=("full", "half", "both"), default="both")


def run(args: argparse.Namespace) -> Numbers:
    """The feed and the pool under load."""
    numbers: Numbers = {"servers": NUM_SERVERS, "in_flight": args.in_flight, "tokens": NUM_TOKENS}
    if args.part != "half":
        # More groups than fit: a place that falls free is taken at once, and all of them are always taken.
        numbers |= _part("full", args, groups=3 * args.in_flight // (2 * GROUP_SIZE), delay_s=FULL_DELAY_S)
    if args.part != "full":
        delay_s = args.in_flight / args.half_rate / SLOWEST
        numbers |= _part("half", args, groups=args.in_flight // GROUP_SIZE, delay_s=delay_s)
        numbers["half.rate"] = args.half_rate
    return numbers


def _part(name: str, args: argparse.Namespace, *, groups: int, delay_s: float) -> Numbers:
    with ExitStack() as stack:
        servers = [stack.enter_context(_server(seed, delay_s)) for seed in range(NUM_SERVERS)]
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="apriel-load-", dir=".")))
        harness = Harness(dict(servers), folder, in_flight=args.in_flight, groups=groups)
        stack.callback(harness.close)
        numbers = harness.measure(60 * args.minutes)
    return {f"{name}.{key}": value for key, value in numbers.items()}


@contextmanager
def _server(seed: int, delay_s: float) -> Iterator[tuple[int, str]]:
    """Process id and address."""
    module = [sys.executable, "-m", "apriel_mcore.processes", "apriel_mcore.bench.load_server"]
    with subprocess.Popen(
        [*module, str(seed), str(delay_s), str(NUM_TOKENS)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        try:
            yield process.pid, f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.kill()


def _recipe(groups: int) -> RunConfig:
    recipe = Path(__file__).parents[2] / "recipes" / "quickstart.toml"
    return load(
        recipe,
        [
            f"rollout.group_size={GROUP_SIZE}",
            f"rollout.max_groups_in_flight={groups}",
            f"train.groups_per_step={GROUPS_PER_STEP}",
            "rollout.max_lag=3",
            "verify.workers=4",
        ],
    )


def _problems(config: RunConfig) -> dict[str, Problem]:
    return {
        f"{domain}-{i}": Problem(
            id=f"{domain}-{i}",
            domain=domain,
            source="load",
            messages=(Message(role="user", content="?"),),
            verifier="math",
            reference={"answer": "7", "format": "boxed"},
            split_key=str(i),
            prompt_T=tuple((i * 31 + j) % 1000 for j in range(NUM_PROMPT_TOKENS)),
        )
        for domain in config.domains
        for i in range(2000)
    }


class Harness:
    """A first rank without a trainer."""

    def __init__(self, servers: dict[int, str], folder: Path, *, in_flight: int, groups: int) -> None:
        config = self._config = _recipe(groups)
        assert isinstance(config.verify, Verify)
        self._servers = servers
        self._thread = EventLoopThread()
        self._judge = VerifierPool(config.verify)
        self._pool = ServerPool(
            [RemoteServer(url, token="") for url in servers.values()],
            places=in_flight // len(servers),
            recompute_kv=False,
            patience=Patience(start_timeout_s=30.0),
        )
        problems = _problems(config)
        asker = TimedAsker(self._pool, self._judge)
        self._thread.run(self._judge.__aenter__())
        self._thread.run(self._judge.warm_up(("math",)))
        self._thread.run(self._pool.__aenter__())
        self._feed = TimedFeed(
            config,
            scheduler=_scheduler(config, problems),
            controller=controller_of(config),
            problems=problems,
            asker=asker,
            journal=Journal(folder, tell=print),
            loop=self._thread.loop,
            stop_requested=lambda: False,
            weights_wanted=lambda: False,
            alarm=print,
        )
        self._feed.restore(self._feed.fresh())
        self._version = 0
        self._timeline = Timeline(folder / "timeline", rank=0, attempt=1)
        spans.drain()
        make_way()  # as train.py does
        self._publish()

    def close(self) -> None:
        """End everything."""
        self._feed.stop()
        self._thread.run(self._pool.__aexit__())
        self._thread.run(self._judge.__aexit__(None, None, None))
        self._thread.close()

    def measure(self, seconds: float) -> Numbers:
        """Train nothing, as fast as groups come; numbers of what came after the warm-up."""
        self._steps_until(time.perf_counter() + WARM_UP_S)
        added = self._feed.added = Added()
        lags = Histogram()
        watch = asyncio.run_coroutine_threadsafe(_note_lags(lags), self._thread.loop)
        start, cpu, waited = time.perf_counter(), self._cpu(), self._waited()
        trained, memory = self._steps_until(start + seconds)
        wall, cpu = time.perf_counter() - start, self._cpu() - cpu
        watch.cancel()
        times, sizes = np.array(memory[len(memory) // 2 :]).T
        num_finished = len(added.total)
        numbers: Numbers = {
            "rollouts_per_s": num_finished / wall,
            "trained_per_s": trained / wall,
            "rss_mib": float(sizes[-1]),
            "rss_growth_mib_per_min": float(np.polyfit(times, sizes, 1)[0] * 60),
            "bench_mib": (added.num_bytes + lags.num_bytes) / 2**20,
            **added.numbers(),
            "loop_lag_p99_s": lags.percentile(99),
            "loop_lag_max_s": lags.percentile(100),
            "no_core_share": (self._waited() - waited) / wall,
        }
        for name, used in zip(("cpu_ms", "judge_cpu_ms", "servers_cpu_ms"), cpu, strict=True):
            numbers[name] = float(1e3 * used / num_finished)
        return numbers

    def _cpu(self) -> NDArray[np.float64]:
        """CPU seconds so far of this process, of judges and of servers."""
        ours = psutil.Process()
        used = np.array([sum(ours.cpu_times()[:2]), 0.0, 0.0])
        for child in ours.children():
            used[2 if child.pid in self._servers else 1] += sum(child.cpu_times()[:2])
        return used

    def _waited(self) -> float:
        """Seconds so far that the loop's thread wanted a core and had none."""
        path = Path(f"/proc/self/task/{self._thread.native_id}/schedstat")
        return int(path.read_text(encoding="ascii").split()[1]) / 1e9

    def _steps_until(self, end: float) -> tuple[int, list[tuple[float, float]]]:
        """Rollouts of the batches that were taken; (second, MiB) at each step."""
        trained, memory, process = 0, list[tuple[float, float]](), psutil.Process()
        while time.perf_counter() < end:
            groups = self._feed.take().groups
            trained += self._pack(groups)
            self._version += 1
            self._publish()
            self._timeline.write(self._version, spans.drain().spans)
            if self._version % SNAPSHOT_EVERY == 0:
                msgspec.json.encode(self._feed.snapshot())
            memory.append((time.perf_counter(), process.memory_info().rss / 2**20))
        return trained, memory

    def _pack(self, groups: list[Group]) -> int:
        shaped_P_G = [shape_group(group, self._config) for group in groups]
        samples = [
            sample
            for group, shaped_G in zip(groups, shaped_P_G, strict=True)
            for sample in to_samples(group, shaped_G, self._config.advantage)
        ]
        return len(pack_step(samples, self._config, num_data_ranks=1).samples)

    def _publish(self) -> None:
        self._thread.run(self._pool.update_weights(arena_offer("", self._version)))
        self._feed.settle(self._version)


async def _note_lags(lags: Histogram) -> None:
    """How late the event loop wakes whom it should wake, until cancelled."""
    while True:
        start = time.perf_counter()
        await asyncio.sleep(_LAG_EVERY_S)
        lags.add(time.perf_counter() - start - _LAG_EVERY_S)


def _scheduler(config: RunConfig, problems: dict[str, Problem]) -> DomainScheduler:
    ids = {
        domain: [problem.id for problem in problems.values() if problem.domain == domain]
        for domain in config.domains
    }
    return DomainScheduler(
        config.ratios,
        ids,
        groups_per_step=config.train.groups_per_step,
        group_size=config.rollout.group_size,
        settings=config.sampler,
        max_lag=3.0,
        max_group_age=4.0,
        seed=config.seed,
    )
