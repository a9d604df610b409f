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
from apriel_mcore.errors import InputError
from apriel_mcore.planning.simulation import Limits, Simulation, Step, Trace, TrainerApart

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
UNLIMITED = 10**9

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


class Slots(TrainerApart):
    """A pool of equal places: a rollout holds one for its latency."""

    def __init__(self, num_slots: int) -> None:
        super().__init__()
        self._free = num_slots
        self._ends: list[tuple[float, int, int]] = []
        self._num_started = 0

    def has_room(self) -> bool:
        """Whether a place is free."""
        return self._free > 0

    def start(self, group_id: int, work: float, now: float) -> None:
        """`work` is the latency in seconds."""
        self._free -= 1
        self._num_started += 1
        heapq.heappush(self._ends, (now + work, self._num_started, group_id))

    def next_end(self) -> float:
        """Infinity when idle."""
        return self._ends[0][0] if self._ends else math.inf

    def end(self) -> int:
        """The group whose rollout ends next."""
        self._free += 1
        return heapq.heappop(self._ends)[2]


class Latencies:
    """Lognormal latencies and keep rates by domain."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._random = np.random.default_rng(setup.seed)
        variance = setup.sigma**2
        self._mu_D = [math.log(mean) - variance / 2 for mean in setup.latency_D]

    def rollouts(self, domain: str) -> list[float]:
        """Seconds of each."""
        mu = self._mu_D[DOMAINS.index(domain)]
        return self._random.lognormal(mu, self._setup.sigma, self._setup.group_size).tolist()

    def keeps(self, domain: str) -> bool:
        """By the domain's rate."""
        return self._random.random() < self._setup.keep_D[DOMAINS.index(domain)]

    def train_seconds(self, works: list[list[float]]) -> float:
        """The same for every batch."""
        return self._setup.train_time


def simulate(setup: Setup) -> Trace:
    """One run; TrainingError if everybody waits for everybody."""
    limits = Limits(num_steps=setup.num_steps, max_queued=QUEUED_GROUPS, max_in_flight=UNLIMITED)
    return Simulation(build_scheduler(setup), Slots(setup.slots), Latencies(setup), limits).run()


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
    batches = [[_groups_D(step) for step in trace.steps] for trace in traces]
    errors = [l1(groups_D, setup.targets_D) for batch in batches for groups_D in batch]
    steady = [l1(groups_D, setup.targets_D) for batch in batches for groups_D in batch[NUM_STEADY_FROM:]]
    totals = [[sum(column) for column in zip(*batch, strict=True)] for batch in batches]
    lags = [lag for trace in traces for step in trace.steps for lag in step.lags]
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
        "batches_per_s": statistics.fmean(len(trace.steps) / trace.seconds for trace in traces),
    }


def _groups_D(step: Step) -> list[int]:
    return [step.domains.count(domain) for domain in DOMAINS]


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
        results[scheme] = summary([simulate(setup) for setup in setups], base)
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
