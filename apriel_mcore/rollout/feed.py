"""Groups worth training, in the mixture's proportions, generated ahead of the trainer.

    scheduler.dispatch -> asker (pool, judge) -> keep? -> scheduler.resolve -> ready
                                                       scheduler.compose <- take()   [trainer thread]
                                                       scheduler.settle  <- settle()

Consumes tickets of the scheduler and places in the pool; produces groups, oldest first per domain.
Waits: the dispatcher for a free place (bounded outstanding work: max_lag) or a free pool slot;
`take` for the quotas of a batch and for their groups' way to the disk. Unblocked by: a group that resolves, a
settle, space on a full disk. Everything that touches
the scheduler runs on one event loop, so there are no locks. Every decision goes to the journal first, and
a restarted run replays it: recorded batches are trained again as they were, finished groups are not
generated again, what was in flight is asked again.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Mapping
from statistics import fmean
from typing import Any

import msgspec

from apriel_mcore.config.schema import RunConfig
from apriel_mcore.data.controllers import Aim, Controller
from apriel_mcore.data.sampler import Composition, DomainScheduler, Ticket
from apriel_mcore.errors import InputError
from apriel_mcore.loss.advantage import keeps
from apriel_mcore.loss.reward import shape_group
from apriel_mcore.obs.spans import span
from apriel_mcore.rollout.ask import Asker
from apriel_mcore.rollout.journal import (
    Composed,
    Dispatched,
    Journal,
    Record,
    Resolved,
    Restarted,
    Settled,
    records_since,
)
from apriel_mcore.types import Group, Outcome, Problem


class StopRequested(Exception):
    """The user or the cluster asked the run to stop; state is consistent, nothing is in training."""


class WeightsWanted(Exception):
    """No server serves, and one would if the current version were published again."""


class TakenBatch(msgspec.Struct, frozen=True):
    """The groups of one step, and what they were composed for."""

    groups: list[Group]
    aim: Aim


class RolloutFeed:
    """The feed on the rank that owns the pool. `take`, `settle` and `snapshot` block their caller."""

    def __init__(
        self,
        config: RunConfig,
        *,
        scheduler: DomainScheduler,
        controller: Controller,
        problems: Mapping[str, Problem],
        asker: Asker,
        journal: Journal,
        loop: asyncio.AbstractEventLoop,
        stop_requested: Callable[[], bool],
        weights_wanted: Callable[[], bool],
        alarm: Callable[[str], None],
    ) -> None:
        self._config = config
        self._stages = config.stages()
        self._scheduler = scheduler
        self._controller = controller
        self._aim = controller.aim
        """What the next batch is generated for and composed to."""
        self._problems = problems
        self._asker = asker
        self._journal = journal
        self._loop = loop
        self._stop_requested = stop_requested
        self._weights_wanted = weights_wanted
        self._alarm = alarm
        self._signals: Counter[str] = Counter()
        """Groups that completed in this attempt, and those with a signal in either reward, by domain."""
        self._ready: dict[int, Group] = {}
        self._recorded: deque[TakenBatch] = deque()
        """Batches that an earlier attempt composed, to be trained again as they were."""
        self.targets = scheduler.ratios
        """The mixture that the batch taken last was composed for."""
        self._version = 0
        self._settled = -1
        self._changed = asyncio.Event()
        self._in_flight: set[asyncio.Task[None]] = set()
        self._segments: deque[int] = deque(maxlen=config.checkpoint.keep + 1)
        """First segments of the checkpoints that may still be there, the one being written included."""
        self._failure: BaseException | None = None
        self._dispatcher: asyncio.Task[None] | None = None

    # --- called by the trainer thread ------------------------------------------------------------

    @span("wait")
    def take(self) -> TakenBatch:
        """The groups of the next step.

        Raises StopRequested, WeightsWanted, or what broke the background work.
        """
        batch = self._run(self._take())
        self.targets = batch.aim.ratios
        return batch

    def settle(self, version: int) -> None:
        """The pool serves `version`: the batch that led to it is done; generation goes on, or begins."""
        self._run(self._settle(version))

    def snapshot(self) -> dict[str, Any]:
        """State that belongs to a checkpoint; the journal goes on in a new segment."""
        return self._run(self._snapshot())

    @property
    def _recipe(self) -> RunConfig:
        """The recipe of the current stage."""
        return self._stages[self._aim.stage]

    def metrics(self) -> dict[str, float]:
        """Scheduler's numbers, the asker's with those of the judges, and what each reward would have kept."""
        rates = {
            f"keep_rate_{reward}.{domain}": self._signals[f"{reward}.{domain}"] / total
            for domain in self._config.domains
            if (total := self._signals[f"completed.{domain}"])
            for reward in ("task", "shaped")
        }
        in_flight = {"groups_in_flight": float(len(self._in_flight))}
        return self._scheduler.metrics() | rates | self._asker.metrics() | in_flight

    def stop(self) -> None:
        """Abandon what is in flight and close the journal."""
        self._run(self._stop())

    def _run[T](self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    # --- restore: before the first settle --------------------------------------------------------

    def fresh(self) -> dict[str, Any]:
        """The snapshot of a run that has not begun."""
        state = self._scheduler.state()
        return {
            "segment": 0,
            "scheduler": state,
            "controller": self._controller.state(),
            "aim": msgspec.to_builtins(self._aim),
            "settled": -1,
            "ready": [],
            "recorded": [],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint's snapshot and the journal written after it."""
        self._scheduler.load(state["scheduler"])
        self._controller.load(state["controller"])
        self._aim = msgspec.convert(state["aim"], Aim)
        self._settled = state["settled"]
        self._ready = {group.id: group for group in msgspec.convert(state["ready"], list[Group])}
        self._recorded.extend(msgspec.convert(state["recorded"], list[TakenBatch]))
        self._set_bounds()
        for record in records_since(self._journal.folder, state["segment"]):
            self._replay(record)
        self._scheduler.requeue_in_flight()
        self._journal.append(Restarted())

    def _replay(self, record: Record) -> None:
        match record:
            case Dispatched():
                ticket = self._scheduler.dispatch(record.version)
                asked = (ticket.group_id, ticket.problem_id) if ticket else None
                if asked != (record.group_id, record.problem_id):
                    raise InputError(
                        f"{self._journal.folder}: the journal asked problem {record.problem_id}, this run "
                        f"asks {asked}: the data or the sampler changed; start in a new run directory"
                    )
            case Resolved():
                self._resolve(record)
            case Composed():
                composition = self._scheduler.compose(record.version, force=record.force)
                if composition is None or composition.group_ids != record.group_ids:
                    raise InputError(
                        f"{self._journal.folder}: batch {record.version} does not replay; start anew"
                    )
                self._recorded.append(self._claim(composition))
            case Settled():
                self._free_places(record.version)
            case Restarted():
                self._scheduler.requeue_in_flight()

    # --- on the event loop -----------------------------------------------------------------------

    async def _dispatch_forever(self) -> None:
        while True:
            while self._may_dispatch():
                ticket = self._scheduler.dispatch(self._version)
                if ticket is None:
                    break
                self._send(ticket)
            self._changed.clear()
            await self._changed.wait()

    def _may_dispatch(self) -> bool:
        room = len(self._in_flight) < self._config.rollout.max_groups_in_flight
        replaying = bool(self._recorded) or self._version < self._settled
        return room and not replaying and not self._journal.stalled

    def _send(self, ticket: Ticket) -> None:
        self._journal.append(
            Dispatched(
                version=self._version,
                group_id=ticket.group_id,
                domain=ticket.domain,
                problem_id=ticket.problem_id,
            )
        )
        task = asyncio.create_task(self._answer(ticket))
        self._in_flight.add(task)
        task.add_done_callback(self._landed)

    async def _answer(self, ticket: Ticket) -> None:
        group = await self._asker.group(ticket, self._problems[ticket.problem_id], self._recipe)
        outcome: Outcome = "failed" if group is None else "kept" if self._keeps(group) else "filtered"
        record = Resolved(
            group_id=ticket.group_id,
            outcome=outcome,
            loss_tokens=sum(len(rollout.tokens_T) for rollout in group.rollouts_G) if group else 0,
            solve_rate=group.solve_rate if group else 0.0,
            group=group if group and outcome == "kept" else "dropped",
        )
        self._journal.append(record)
        self._resolve(record)  # in the order of the journal; trained only when it is on disk
        await self._journal.durable()
        for message in self._scheduler.alarms():
            self._alarm(message)

    def _resolve(self, record: Resolved) -> None:
        self._scheduler.resolve(
            record.group_id, record.outcome, loss_tokens=record.loss_tokens, solve_rate=record.solve_rate
        )
        if isinstance(record.group, Group):
            self._ready[record.group_id] = record.group

    def _landed(self, task: "asyncio.Task[None]") -> None:
        self._in_flight.discard(task)  # before the dispatcher looks again, or it would miss the free place
        self._note_failure(task)
        self._changed.set()

    def _keeps(self, group: Group) -> bool:
        shaped_G, domain = shape_group(group, self._recipe), group.problem.domain
        advantage = self._recipe.advantage
        self._signals[f"completed.{domain}"] += 1
        self._signals[f"task.{domain}"] += keeps(shaped_G, "task_reward", min_std=advantage.min_std)
        self._signals[f"shaped.{domain}"] += keeps(shaped_G, "shaped_reward", min_std=advantage.min_std)
        return keeps(shaped_G, advantage.filter_on, min_std=advantage.min_std)

    async def _take(self) -> TakenBatch:
        if self._stop_requested():
            raise StopRequested
        if self._recorded:
            return self._recorded.popleft()
        limit = self._config.sampler.quota_wait_s
        give_up = float("inf") if limit == "forever" else time.monotonic() + limit
        while True:
            self._raise_failure()
            if self._stop_requested():
                raise StopRequested
            batch = self._compose(force=time.monotonic() > give_up)
            if batch is not None:
                await self._journal.durable()
                return batch
            if self._weights_wanted():
                raise WeightsWanted
            await asyncio.sleep(0.02)

    def _compose(self, *, force: bool) -> TakenBatch | None:
        composition = self._scheduler.compose(self._version, force=force)
        if composition is None:
            return None
        self._journal.append(
            Composed(
                version=self._version,
                force=force,
                group_ids=composition.group_ids,
                stale=composition.stale,
            )
        )
        self._changed.set()
        return self._claim(composition)

    def _claim(self, composition: Composition) -> TakenBatch:
        for stale in composition.stale:
            del self._ready[stale]
        groups = [self._ready.pop(group_id) for group_id in composition.group_ids]
        self._controller.observe(self._task_rewards(groups))
        return TakenBatch(groups, self._aim)

    def _task_rewards(self, groups: list[Group]) -> dict[str, float]:
        """Mean unshaped reward of each domain in a batch."""
        rewards: dict[str, list[float]] = {}
        for group in groups:
            shaped_G = shape_group(group, self._recipe)
            rewards.setdefault(group.problem.domain, []).append(fmean(shaped.task for shaped in shaped_G))
        return {domain: fmean(means) for domain, means in rewards.items()}

    async def _settle(self, version: int) -> None:
        self._version = version
        if version > self._settled:
            self._journal.append(Settled(version=version))
            self._free_places(version)
        if self._dispatcher is None:
            self._dispatcher = asyncio.create_task(self._dispatch_forever())
            self._dispatcher.add_done_callback(self._note_failure)
        self._changed.set()

    def _free_places(self, version: int) -> None:
        """The batch in training is done; from here on the mixture that it led to is aimed at."""
        self._settled = version
        self._scheduler.settle()
        if self._controller.aim != self._aim:
            self._aim = self._controller.aim
            self._scheduler.set_ratios(self._aim.ratios)
            self._set_bounds()

    def _set_bounds(self) -> None:
        """How far generation may run ahead is the stage's to say."""
        rollout = self._recipe.rollout
        self._scheduler.set_bounds(max_lag=rollout.max_lag, max_group_age=rollout.oldest_group)

    async def _snapshot(self) -> dict[str, Any]:
        self._segments.append(self._journal.rotate())
        state = self._state()
        await self._journal.durable()  # a checkpoint before this one may need all of the segments before
        if len(self._segments) == self._segments.maxlen:
            self._journal.forget_before(self._segments[0])
        return state

    def _state(self) -> dict[str, Any]:
        return {
            "segment": self._journal.segment,
            "scheduler": self._scheduler.state(),
            "controller": self._controller.state(),
            "aim": msgspec.to_builtins(self._aim),
            "settled": self._settled,
            "ready": msgspec.to_builtins(list(self._ready.values())),
            "recorded": msgspec.to_builtins(list(self._recorded)),
        }

    async def _stop(self) -> None:
        tasks = [*self._in_flight, *([self._dispatcher] if self._dispatcher else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._journal.close()

    def _note_failure(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and task.exception() and self._failure is None:
            self._failure = task.exception()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
