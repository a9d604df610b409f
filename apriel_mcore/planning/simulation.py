"""When does what happen in the asynchronous loop? The real scheduler, simulated servers and trainer.

    DomainScheduler.dispatch -> queue -> Pool -> resolve -> compose -> trainer -> settle

Time is simulated: an event is an end of a rollout or of an optimizer step. The pool
and the workload are the caller's: slots with fixed latencies (`apriel bench sampler`) or servers whose speed
depends on their load (planning/pool.py).
"""

import math
from collections import deque
from typing import Protocol

import msgspec

from apriel_mcore.config.schema import RunConfig
from apriel_mcore.data.sampler import DomainScheduler
from apriel_mcore.errors import TrainingError

_PROBLEMS = 20000
"""Of each domain: more than a simulated run asks."""


class Pool(Protocol):
    """Rollouts in progress, and the trainer beside them."""

    @property
    def train_end(self) -> float:
        """When the optimizer step in progress ends if nothing starts or ends before; infinity without one."""
        ...

    def begin_training(self, seconds: float, now: float) -> None:
        """An optimizer step that would take `seconds` with nobody beside it."""
        ...

    def end_training(self, now: float) -> None:
        """It is done, and the servers have its weights."""
        ...

    def has_room(self) -> bool: ...
    def start(self, group_id: int, work: float, now: float) -> None:
        """`work` is what `Workload.rollouts` drew: seconds, or tokens."""
        ...

    def next_end(self) -> float:
        """When the next rollout ends if nothing starts before; infinity when idle."""
        ...

    def end(self) -> int:
        """Take that rollout out; the group that it belongs to."""
        ...


class TrainerApart:
    """A trainer whose devices are its own: nobody slows it."""

    def __init__(self) -> None:
        self.train_end = math.inf

    def begin_training(self, seconds: float, now: float) -> None:
        """As Pool."""
        self.train_end = now + seconds

    def end_training(self, now: float) -> None:
        """As Pool."""
        self.train_end = math.inf


class Workload(Protocol):
    """What the policy would do."""

    def rollouts(self, domain: str) -> list[float]:
        """Work of each rollout of one group."""
        ...

    def keeps(self, domain: str) -> bool:
        """Whether a finished group has a learning signal."""
        ...

    def train_seconds(self, works: list[list[float]]) -> float:
        """Of the optimizer step on these groups, publish included unless the pool counts it."""
        ...


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How far the feed goes."""

    num_steps: int
    max_queued: int
    """Groups without a running rollout; the feed has no such bound of its own (use a large one)."""
    max_in_flight: int
    """`rollout.max_groups_in_flight`."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One simulated optimizer step."""

    begin: float
    seconds: float
    """As `Workload.train_seconds`, with nobody beside it."""
    wait: float
    """Of the trainer, before it."""
    domains: list[str]
    lags: list[int]
    """Of each group: versions between its first rollout and its training."""
    work: float
    num_rollouts: int
    """Finished before it began, trained or not."""


class Trace(msgspec.Struct, kw_only=True):
    """What a simulated run did."""

    steps: list[Step] = []
    num_stale: int = 0
    num_picks: int = 0
    num_rollouts: int = 0
    """Finished, trained or not."""
    seconds: float = 0.0


class Simulation:
    """One pool, one trainer, one scheduler. `scheduler` is real; nothing else is."""

    def __init__(self, scheduler: DomainScheduler, pool: Pool, workload: Workload, limits: Limits) -> None:
        self.scheduler = scheduler
        self.trace = Trace()
        self._pool = pool
        self._workload = workload
        self._limits = limits
        self._version = 0
        self._now = 0.0
        self._idle_since = 0.0
        self._queue: deque[int] = deque()
        self._works: dict[int, list[float]] = {}
        self._unstarted: dict[int, list[float]] = {}
        self._ready: dict[int, list[float]] = {}
        self._unfinished: dict[int, int] = {}
        self._domain_of: dict[int, str] = {}
        self._started_at: dict[int, int] = {}

    def run(self) -> Trace:
        """Simulate the steps. TrainingError if everybody waits for everybody."""
        while len(self.trace.steps) < self._limits.num_steps:
            self._fill_queue()
            self._fill_pool()
            if min(self._pool.next_end(), self._pool.train_end) == math.inf:
                raise TrainingError(
                    f"the sampler stopped at step {self._version}: no group is in flight, none may be asked, "
                    "and the batch is incomplete"
                )
            self._advance()
        self.trace.seconds = self._now
        return self.trace

    def _fill_queue(self) -> None:
        limits = self._limits
        while len(self._queue) < limits.max_queued and len(self._works) < limits.max_in_flight:
            ticket = self.scheduler.dispatch(self._version)
            if ticket is None:
                return
            works = self._workload.rollouts(ticket.domain)
            self._works[ticket.group_id] = works
            self._unstarted[ticket.group_id] = list(works)
            self._domain_of[ticket.group_id] = ticket.domain
            self._queue.append(ticket.group_id)
            self.trace.num_picks += 1

    def _fill_pool(self) -> None:
        """Free places take the rollouts of the front group one by one; a group may start in part."""
        while self._queue and self._pool.has_room():
            group_id = self._queue[0]
            works = self._unstarted[group_id]
            if group_id not in self._started_at:
                self._started_at[group_id] = self._version
                self._unfinished[group_id] = len(works)
                self.scheduler.start(group_id, self._version)
            while works and self._pool.has_room():
                self._pool.start(group_id, works.pop(), self._now)
            if not works:
                self._queue.popleft()
                del self._unstarted[group_id]

    def _advance(self) -> None:
        """To the next event that the scheduler sees, or that leaves a place to a waiting group."""
        while (when := min(self._pool.next_end(), self._pool.train_end)) < math.inf:
            self._now = when
            if self._pool.train_end <= when:
                self._finish_step()
                break
            group_id = self._pool.end()
            self.trace.num_rollouts += 1
            self._unfinished[group_id] -= 1
            if self._unfinished[group_id] == 0:
                self._deliver(group_id)
                break
            if self._queue:
                break
        self._train()

    def _deliver(self, group_id: int) -> None:
        del self._unfinished[group_id]
        kept = self._workload.keeps(self._domain_of[group_id])
        self.scheduler.resolve(group_id, "kept" if kept else "filtered", loss_tokens=1)
        works = self._works.pop(group_id)
        if kept:
            self._ready[group_id] = works
        else:
            self._forget(group_id)

    def _train(self) -> None:
        """The trainer takes batches while it is free and one can be composed."""
        while self._pool.train_end == math.inf and len(self.trace.steps) < self._limits.num_steps:
            batch = self.scheduler.compose(self._version)
            if batch is None:
                return
            works = [self._ready[group_id] for group_id in batch.group_ids]
            seconds = self._workload.train_seconds(works)
            self.trace.steps.append(
                Step(
                    begin=self._now,
                    seconds=seconds,
                    wait=self._now - self._idle_since,
                    domains=[self._domain_of[group_id] for group_id in batch.group_ids],
                    lags=[self._version - self._started_at[group_id] for group_id in batch.group_ids],
                    work=sum(map(sum, works)),
                    num_rollouts=self.trace.num_rollouts,
                )
            )
            self.trace.num_stale += len(batch.stale)
            for group_id in (*batch.group_ids, *batch.stale):
                del self._ready[group_id]
                self._forget(group_id)
            if seconds > 0:
                self._pool.begin_training(seconds, self._now)
            else:
                self._finish_step()

    def _finish_step(self) -> None:
        self._pool.end_training(self._now)
        self._idle_since = self._now
        self._version += 1
        self.scheduler.settle()

    def _forget(self, group_id: int) -> None:
        del self._domain_of[group_id], self._started_at[group_id]


def scheduler_of(config: RunConfig, *, seed: int) -> DomainScheduler:
    """The product's, as the recipe asks for it, over numbered problems."""
    return DomainScheduler(
        config.ratios,
        {name: [f"{name}-{number}" for number in range(_PROBLEMS)] for name in config.ratios},
        groups_per_step=config.train.groups_per_step,
        group_size=config.rollout.group_size,
        settings=config.sampler,
        max_lag=config.rollout.max_lag,
        max_group_age=config.rollout.oldest_group,
        seed=seed,
    )
