"""What only the first rank has: rollout servers, judges and the log, on an event loop of their own."""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from apriel_mcore.config.load import resolved
from apriel_mcore.config.schema import RunConfig
from apriel_mcore.data import gold_check, problems
from apriel_mcore.data.problems import Dataset
from apriel_mcore.data.prompts import Renderer
from apriel_mcore.errors import Preempted
from apriel_mcore.obs.runlog import EventWriter, JsonlWriter, RunLog, read_events
from apriel_mcore.obs.wandb_writer import WandbWriter
from apriel_mcore.rollout.ask import Asker
from apriel_mcore.rollout.configured import (
    group_scorer,
    local_server_maker,
    remote_token,
    server_pool,
)
from apriel_mcore.rollout.event_loop import EventLoopThread
from apriel_mcore.rollout.orders import OrderDesk
from apriel_mcore.rollout.pool import ServerPool
from apriel_mcore.rundir import RunDir
from apriel_mcore.seams import Ack, Offer
from apriel_mcore.verify.configured import judges


class Backstage:
    """Servers start at once, in the background; ask whether they `have_started` before the first request."""

    def __init__(self, config: RunConfig, run_dir: RunDir, model: Path, renderer: Renderer) -> None:
        self._config = config
        self.thread = EventLoopThread()
        self.log = run_log(config, run_dir)
        self.judge = judges(config)
        self.pool: ServerPool = server_pool(config, model=model, logs=run_dir.logs, run=run_dir.digest)
        self._make_local = local_server_maker(config, model=model, logs=run_dir.logs, run=run_dir.digest)
        self._orders = run_dir.pool
        self._desk: asyncio.Task[None] | None = None
        self.asker = Asker(self.pool, self.judge, group_scorer(config, self.pool, renderer))
        self._open = AsyncExitStack()
        self.run(self._open.enter_async_context(self.judge))
        self._starting = self.run(self._start())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End servers and judges, also those that are still starting, and the log."""
        self.run(self._end())
        self.thread.close()
        self.log.close(failed=error is not None and not isinstance(error, Preempted))

    async def _start(self) -> "asyncio.Task[ServerPool]":
        return asyncio.create_task(self._open.enter_async_context(self.pool))

    async def _end(self) -> None:
        tasks = [self._starting, *([self._desk] if self._desk else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._open.aclose()

    def run[T](self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the event loop and wait for it."""
        return self.thread.run(work)

    def alarm(self, message: str) -> None:
        """Something that the user should see now."""
        self.log.event("alarm", message=message)

    def have_started(self, *, within_s: float) -> bool:
        """Whether every server serves, now or within a while; PoolError when one does not start."""
        return self.run(self._have_started(within_s))

    async def _have_started(self, within_s: float) -> bool:
        done, _ = await asyncio.wait([self._starting], timeout=within_s)
        for starting in done:
            starting.result()
            self._take_orders()
        return bool(done)

    def _take_orders(self) -> None:
        desk = OrderDesk(
            self._orders,
            self.pool,
            make_local=self._make_local,
            remote_token=lambda: remote_token(self._config),
        )
        self._desk = asyncio.create_task(desk.serve())

    def server_states(self) -> Mapping[str, str]:
        """State of each server, by name."""
        return self.pool.states

    def muster(self) -> list[str]:
        """The servers that the next update will reach (bridge/publish.py's ServerSide)."""
        return self.run(self.pool.muster())

    def receive(self, offer: Offer) -> None:
        """Have the offer's members begin to receive it (bridge/publish.py's ServerSide)."""
        self.run(self.pool.receive(offer))

    def update(self, offer: Offer) -> Future[list[Ack]]:
        """Begin to put a version on every server (bridge/publish.py's ServerSide)."""
        return asyncio.run_coroutine_threadsafe(self.pool.update_weights(offer), self.thread.loop)

    def score(self, tokens_T: Sequence[int]) -> list[list[float]]:
        """Log-prob of each token after the first, by every server (bridge/publish.py's ServerSide)."""
        return self.run(self.pool.score(tokens_T))

    def self_check(self, dataset: Dataset) -> Dataset:
        """The dataset without collected problems whose own gold does not satisfy their judge.

        InputError for such a problem that was written for this run (jsonl) or generated.
        """
        return problems.set_aside(dataset, self.run(gold_check.refused(self._config, dataset, self.judge)))


def run_log(config: RunConfig, run_dir: RunDir) -> RunLog:
    """events.jsonl, and Weights & Biases where the recipe asks for it."""
    writers: list[EventWriter] = [JsonlWriter(run_dir.events)]
    if config.track.wandb != "off":
        writers.append(
            WandbWriter(
                mode=config.track.wandb,
                project=config.track.project,
                name=config.name,
                folder=run_dir.root,
                config=resolved(config),
                past=read_events(run_dir.events),
            )
        )
    return RunLog(tuple(writers))


def open_backstage(
    config: RunConfig, run_dir: RunDir, model: Path, renderer: Renderer, resources: ExitStack
) -> Backstage:
    """A backstage that ends with `resources`."""
    return resources.enter_context(Backstage(config, run_dir, model, renderer))
