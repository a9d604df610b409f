"""Does the domain sampler deliver the mixture, and what does that cost? A simulation, in simulated seconds.

    DomainScheduler.dispatch -> queue of 64 groups -> rollout slots -> resolve -> compose -> trainer -> settle

The scheduler is the product's; the pool, the verdicts and the trainer are simulated: a slot is held by one
rollout for a lognormal latency whose mean depends on the domain, and a finished group survives the
zero-advantage filter with a probability that depends on the domain. Numbers per scheme and filter setting:

    l1_mean, l1_max   over batches, sum over domains of |share in the batch - target|
    l1_cumulative     the same over everything trained
    rate              batches a second, relative to static domain draws in first-come batches
    lag_mean          versions between a group's first rollout and its training
"""

import argparse
import heapq
import math
import statistics
import time
from collections import deque

import msgspec
import numpy as np

from apriel_mcore.config import schema
from apriel_mcore.data.sampler import DomainScheduler
from apriel_mcore.errors import InputError, TrainingError

DOMAINS = ("math", "code", "logic", "instruction", "calls")
TARGETS_D = (0.35, 0.25, 0.15, 0.15, 0.10)
KEEP_D = (0.55, 0.45, 0.60, 0.85, 0.30)
LATENCY_D = (60.0, 45.0, 20.0, 10.0, 5.0)
SIGMA = 0.7
GROUP_SIZE = 8
GROUPS_PER_STEP = 128
QUEUED_GROUPS = 64
PROBLEMS_PER_DOMAIN = 2000
NUM_STEADY_FROM = 10
TRAINER_DONE = -1

SCHEMES = {
    "static_fifo": schema.Sampler(kind="static", compose="fifo"),
    "paper_fifo": schema.Sampler(kind="paper", compose="fifo"),
    "deficit_fifo": schema.Sampler(kind="deficit", compose="fifo"),
    "deficit_quota": schema.Sampler(kind="deficit", compose="quota"),
}


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """One simulated run; lists in the order of DOMAINS."""

    settings: schema.Sampler
    keep_D: tuple[float, ...] = (1.0,) * len(DOMAINS)
    latency_D: tuple[float, ...] = LATENCY_D
    """Mean seconds of one rollout."""
    targets_D: tuple[float, ...] = TARGETS_D
    slots: int = 512
    max_lag: float | str = "unbounded"
    max_group_age: float | str = "off"
    train_time: float = 0.0
    """Simulated seconds of an optimizer step, publish included."""
    num_steps: int = 250
    group_size: int = GROUP_SIZE
    groups_per_step: int = GROUPS_PER_STEP
    sigma: float = SIGMA
    seed: int = 0


class Trace(msgspec.Struct, kw_only=True):
    """What a simulated run trained."""

    groups_B_D: list[list[int]] = []
    """Trained groups per batch and domain."""
    lags: list[int] = []
    """Per trained group, in versions."""
    seconds: float = 0.0
    num_stale: int = 0
    num_picks: int = 0


class Simulation:
    """One pool, one trainer, one scheduler, and a heap of what ends when."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self.scheduler = build_scheduler(setup)
        self.trace = Trace()
        self._random = np.random.default_rng(setup.seed)
        self._version = 0
        self._training = False
        self._now = 0.0
        self._free_slots = setup.slots
        self._queue: deque[int] = deque()
        self._unstarted: dict[int, list[float]] = {}
        self._unfinished: dict[int, int] = {}
        self._domain_of: dict[int, int] = {}
        self._started_at: dict[int, int] = {}
        self._events: list[tuple[float, int, int]] = []
        self._num_events = 0
        variance = setup.sigma**2
        self._mu_D = [math.log(mean) - variance / 2 for mean in setup.latency_D]

    def run(self) -> Trace:
        """Simulate the steps. TrainingError if everybody waits for everybody."""
        while len(self.trace.groups_B_D) < self._setup.num_steps:
            self._fill_queue()
            self._fill_slots()
            if not self._events:
                raise TrainingError(
                    f"the sampler stopped at step {self._version}: no group is in flight, none may be asked, "
                    "and the batch is incomplete"
                )
            self._advance()
        self.trace.seconds = self._now
        return self.trace

    def _fill_queue(self) -> None:
        while len(self._queue) < QUEUED_GROUPS:
            ticket = self.scheduler.dispatch(self._version)
            if ticket is None:
                return
            domain = DOMAINS.index(ticket.domain)
            setup = self._setup
            latencies = self._random.lognormal(self._mu_D[domain], setup.sigma, setup.group_size)
            self._unstarted[ticket.group_id] = latencies.tolist()
            self._domain_of[ticket.group_id] = domain
            self._queue.append(ticket.group_id)
            self.trace.num_picks += 1

    def _fill_slots(self) -> None:
        """Free slots take the rollouts of the front group one by one; a group may start in part."""
        while self._free_slots and self._queue:
            group_id = self._queue[0]
            latencies = self._unstarted[group_id]
            if group_id not in self._started_at:
                self._started_at[group_id] = self._version
                self._unfinished[group_id] = self._setup.group_size
                self.scheduler.start(group_id, self._version)
            while latencies and self._free_slots:
                self._at(self._now + latencies.pop(), group_id)
                self._free_slots -= 1
            if not latencies:
                self._queue.popleft()
                del self._unstarted[group_id]

    def _advance(self) -> None:
        """To the next event that the scheduler sees, or that leaves a slot to a waiting group."""
        while self._events:
            self._now, _, group_id = heapq.heappop(self._events)
            if group_id == TRAINER_DONE:
                self._finish_step()
                break
            self._free_slots += 1
            self._unfinished[group_id] -= 1
            if self._unfinished[group_id] == 0:
                self._deliver(group_id)
                break
            if self._queue:
                break
        self._train()

    def _deliver(self, group_id: int) -> None:
        del self._unfinished[group_id]
        kept = self._random.random() < self._setup.keep_D[self._domain_of[group_id]]
        self.scheduler.resolve(group_id, "kept" if kept else "filtered", loss_tokens=1)
        if not kept:
            self._forget(group_id)

    def _train(self) -> None:
        """The trainer takes batches while it is free and one can be composed."""
        while not self._training and len(self.trace.groups_B_D) < self._setup.num_steps:
            batch = self.scheduler.compose(self._version)
            if batch is None:
                return
            groups_D = [0] * len(DOMAINS)
            for group_id in batch.group_ids:
                groups_D[self._domain_of[group_id]] += 1
                self.trace.lags.append(self._version - self._started_at[group_id])
            for group_id in (*batch.group_ids, *batch.stale):
                self._forget(group_id)
            self.trace.groups_B_D.append(groups_D)
            self.trace.num_stale += len(batch.stale)
            self._training = True
            if self._setup.train_time > 0:
                self._at(self._now + self._setup.train_time, TRAINER_DONE)
            else:
                self._finish_step()

    def _finish_step(self) -> None:
        self._training = False
        self._version += 1
        self.scheduler.settle()

    def _forget(self, group_id: int) -> None:
        del self._domain_of[group_id], self._started_at[group_id]

    def _at(self, when: float, group_id: int) -> None:
        self._num_events += 1
        heapq.heappush(self._events, (when, self._num_events, group_id))


def build_scheduler(setup: Setup) -> DomainScheduler:
    """The product's scheduler over numbered problems."""
    return DomainScheduler(
        dict(zip(DOMAINS, setup.targets_D, strict=True)),
        {name: [f"{name}-{number}" for number in range(PROBLEMS_PER_DOMAIN)] for name in DOMAINS},
        groups_per_step=setup.groups_per_step,
        group_size=setup.group_size,
        settings=setup.settings,
        max_lag="unbounded" if isinstance(setup.max_lag, str) else setup.max_lag,
        max_group_age="off" if isinstance(setup.max_group_age, str) else setup.max_group_age,
        seed=setup.seed,
    )


def l1(groups_D: list[int], targets_D: tuple[float, ...]) -> float:
    """Sum over domains of |share - target|."""
    total = sum(groups_D)
    return sum(abs(groups / total - target) for groups, target in zip(groups_D, targets_D, strict=True))


def summary(traces: list[Trace], setup: Setup) -> dict[str, float]:
    """The numbers of one scheme over its repeats; `batches_per_s` is in simulated seconds."""
    errors = [l1(groups_D, setup.targets_D) for trace in traces for groups_D in trace.groups_B_D]
    steady = [l1(groups_D, setup.targets_D) for t in traces for groups_D in t.groups_B_D[NUM_STEADY_FROM:]]
    totals = [[sum(column) for column in zip(*trace.groups_B_D, strict=True)] for trace in traces]
    lags = [lag for trace in traces for lag in trace.lags]
    stale = sum(trace.num_stale for trace in traces)
    return {
        "l1_mean": statistics.fmean(errors),
        "l1_max": max(errors),
        "l1_steady": statistics.fmean(steady or errors),
        "l1_cumulative": statistics.fmean(l1(groups_D, setup.targets_D) for groups_D in totals),
        "lag_mean": statistics.fmean(lags),
        "lag_p95": float(np.percentile(lags, 95)),
        "lag_max": float(max(lags)),
        "stale_fraction": stale / (stale + len(lags)),
        "batches_per_s": statistics.fmean(len(trace.groups_B_D) / trace.seconds for trace in traces),
    }


def picks_per_s(*, seconds: float = 0.2, repeats: int = 5) -> float:
    """Full cycles of deficit_quota (dispatch, resolve, compose, settle) per second of CPU; median."""
    speeds: list[float] = []
    for seed in range(repeats):
        setup = Setup(settings=SCHEMES["deficit_quota"], max_lag=2.0, seed=seed)
        scheduler = build_scheduler(setup)
        outcomes = np.random.default_rng(seed).random(4096) < statistics.fmean(KEEP_D)
        in_flight: deque[int] = deque()
        picks = version = 0
        start = time.process_time()
        while time.process_time() - start < seconds:
            while (ticket := scheduler.dispatch(version)) is not None:
                in_flight.append(ticket.group_id)
                picks += 1
            for _ in range(min(16, len(in_flight))):
                group_id = in_flight.popleft()
                scheduler.resolve(group_id, "kept" if outcomes[group_id % 4096] else "filtered")
            if scheduler.compose(version) is not None:
                scheduler.settle()
                version += 1
        speeds.append(picks / (time.process_time() - start))
    return statistics.median(speeds)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `apriel bench sampler`."""
    order = ",".join(DOMAINS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=1, help="simulated runs per scheme, seeds counting up")
    parser.add_argument("--steps", type=int, default=250, help="batches of each simulated run")
    parser.add_argument("--slots", type=int, default=512, help="rollouts generated at once")
    parser.add_argument(
        "--lag", default="unbounded", help="max_lag in steps (fractions allowed), or unbounded"
    )
    parser.add_argument("--age", default="auto", help="max_group_age in versions, off, or auto: lag + 1")
    parser.add_argument("--train-time", type=float, default=0.0, help="simulated seconds of a trainer step")
    parser.add_argument("--keep", default=_join(KEEP_D), help=f"keep rates with the filter: {order}")
    parser.add_argument("--latency", default=_join(LATENCY_D), help=f"mean seconds of a rollout: {order}")


def run(args: argparse.Namespace) -> dict[str, float | str]:
    """All schemes, without and with the filter; InputError for an option that cannot be used."""
    for option in ("slots", "steps", "repeats"):
        if vars(args)[option] < 1:
            raise InputError(f"--{option} {vars(args)[option]}: give a number above 0")
    keep_D, latency_D = _five(args.keep, "--keep"), _five(args.latency, "--latency")
    if not all(0 < keep <= 1 for keep in keep_D):
        raise InputError(f"--keep {args.keep}: every rate must lie in (0, 1]")
    if not all(latency > 0 for latency in latency_D):
        raise InputError(f"--latency {args.latency}: every mean must be positive")
    max_lag = _bound(args.lag, "--lag", word="unbounded")
    age = "off" if isinstance(max_lag, str) else max_lag + 1
    if args.age != "auto":
        age = _bound(args.age, "--age", word="off")
    base = Setup(
        settings=SCHEMES["static_fifo"],
        latency_D=latency_D,
        slots=args.slots,
        max_lag=max_lag,
        max_group_age=age,
        train_time=args.train_time,
        num_steps=args.steps,
    )
    numbers: dict[str, float | str] = {}
    for suffix, keeps in (("", base.keep_D), ("_filter", keep_D)):
        numbers |= _schemes(msgspec.structs.replace(base, keep_D=keeps), suffix, args.seed, args.repeats)
    numbers["deficit_quota.picks_per_s"] = picks_per_s()
    return numbers


def _schemes(base: Setup, suffix: str, seed: int, repeats: int) -> dict[str, float]:
    """Every scheme under one filter setting, rates relative to static_fifo and to the same mixture."""
    results: dict[str, dict[str, float]] = {}
    for scheme, settings in SCHEMES.items():
        setups = [
            msgspec.structs.replace(base, settings=settings, seed=seed + repeat) for repeat in range(repeats)
        ]
        results[scheme] = summary([Simulation(setup).run() for setup in setups], base)
    reference = results["static_fifo"]["batches_per_s"]
    for numbers in results.values():
        numbers["rate"] = numbers["batches_per_s"] / reference
    # First-come batches of the deficit rule train the same mixture; static draws do not once groups are lost.
    same_mixture = results["deficit_fifo"]["batches_per_s"]
    results["deficit_quota"]["rate_to_same_mixture"] = (
        results["deficit_quota"]["batches_per_s"] / same_mixture
    )
    return {
        f"{scheme}{suffix}.{key}": value
        for scheme, numbers in results.items()
        for key, value in numbers.items()
    }


def _join(values: tuple[float, ...]) -> str:
    return ",".join(f"{value:g}" for value in values)


def _five(text: str, option: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) != len(DOMAINS):
        raise InputError(f"{option} {text}: give {len(DOMAINS)} numbers, for {','.join(DOMAINS)}")
    return values


def _bound(text: str, option: str, *, word: str) -> float | str:
    if text == word:
        return word
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < math.inf:
        raise InputError(f"{option} {text}: give a number >= 0, or {word}")
    return value
