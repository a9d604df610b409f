"""All judges of this host behind one door: who is asked, for how long, and what happens when a judge breaks.

    grade(problem, text) --idle worker--> Load (once) --> Grade --> Verdict
                              ^                             |
                              '---- killed and replaced ----'  crash or deadline: counted, VerifierError

Consumes: idle workers, from a queue; callers wait there, which is the back-pressure on the feed. Answers that
may be slow (triage.py) go to slow workers, which yield the cores to the others, and to at most half of these.
Unblocked by: a reply, or the deadline, or the worker's death. A job cannot wait for ever.
Produces: a verdict, or VerifierError, which loses the rollout and never becomes a reward of 0. A judge that
crashed or a solution that was starved is asked once more; one that ran out of time is not.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Self

from apriel_mcore.config.schema import Verify
from apriel_mcore.errors import InputError, Starved, VerifierError
from apriel_mcore.types import Problem, Verdict
from apriel_mcore.verify import wire
from apriel_mcore.verify.process import WORKER, WorkerDied, WorkerProcess
from apriel_mcore.verify.tally import Counts, Tally, TimedOut, note
from apriel_mcore.verify.triage import Triage

LOAD_TIMEOUT_S = 120.0
"""For importing a verifier's libraries: seconds on an idle machine, and not the answer's fault."""
ATTEMPTS = 2
_NICE = 10


class VerifierPool:
    """The seam `Judge` over `config.workers` killable processes. Use as `async with`."""

    def __init__(self, config: Verify, *, program: tuple[str, ...] = WORKER) -> None:
        self._config = config
        self._program = program
        self._slots: list[_Slot] = []
        self._idle: asyncio.Queue[_Slot] = asyncio.Queue()
        self._idle_slow: asyncio.Queue[_Slot] = asyncio.Queue()
        self._places_for_costly = asyncio.Semaphore(config.slow_workers + config.workers // 2)
        self._raising = asyncio.Semaphore(1)
        self._triage = Triage()
        self._tally = Tally()

    async def __aenter__(self) -> Self:
        for idle, number, nice in (
            (self._idle, self._config.workers, 0),
            (self._idle_slow, self._config.slow_workers, _NICE),
        ):
            for _ in range(number):
                slot = _Slot(self._config, self._program, nice=nice, raising=self._raising)
                self._slots.append(slot)
                idle.put_nowait(slot)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for slot in self._slots:
            slot.stop()

    async def grade(self, problem: Problem, text: str) -> Verdict:
        """The verdict on one answer.

        VerifierError when the judge crashed or missed its deadline: the verdict does not exist.
        InputError when the problem itself cannot be judged (self_check finds this at load).
        """
        costly = self._triage.is_costly(problem, text)
        reply = await self._run(problem, wire.Grade(problem.verifier, problem.reference, text), costly=costly)
        if not isinstance(reply, wire.Graded):
            raise VerifierError(f"{_name(problem)}: expected a verdict, got {reply}")
        return reply.verdict

    async def self_check(self, problem: Problem) -> None:
        """InputError unless the problem can be judged and its gold, derived or given as `gold`, verifies."""
        await self._run(problem, wire.Check(problem.verifier, problem.reference), costly=False)

    async def warm_up(self, verifiers: Sequence[str]) -> None:
        """Before the first job: every worker up, with these verifiers; InputError when one does not work."""
        for slot in self._slots:
            for verifier in verifiers:
                _or_raise(await slot.ask(wire.Load(verifier)), f"verifier {verifier}")

    def counts(self) -> dict[str, Counts]:
        """Jobs per domain so far."""
        return self._tally.counts()

    def metrics(self) -> dict[str, float]:
        """As Tally.metrics; from any thread."""
        return self._tally.metrics()

    @property
    def num_waiting(self) -> int:
        """Jobs without a worker."""
        return self._tally.waiting

    async def _run(self, problem: Problem, request: wire.Request, *, costly: bool) -> wire.Reply:
        with self._tally.job(problem.domain, timed=isinstance(request, wire.Grade)) as counts:
            for attempt in range(ATTEMPTS):
                counts.retried += attempt > 0
                try:
                    reply = await self._attempt(problem, request, costly=costly)
                except TimedOut as error:
                    note(counts, error)
                    raise
                except VerifierError as error:
                    note(counts, error)
                    if attempt + 1 == ATTEMPTS:
                        raise
                else:
                    counts.graded += isinstance(reply, wire.Graded)
                    return reply
        raise AssertionError("the last attempt returns or raises")

    async def _attempt(self, problem: Problem, request: wire.Request, *, costly: bool) -> wire.Reply:
        async with self._place(costly) as slot:
            start = time.monotonic()
            try:
                reply = await slot.ask(request)
            except TimeoutError as error:
                raise TimedOut(f"{_name(problem)}: no verdict within the deadline; worker killed") from error
            except WorkerDied as error:
                raise VerifierError(f"{_name(problem)}: {error}") from error
            finally:
                self._triage.took(problem, time.monotonic() - start)
                slot.recycle()
        return _or_raise(reply, _name(problem))

    @contextlib.asynccontextmanager
    async def _place(self, costly: bool) -> AsyncIterator["_Slot"]:
        """A slot of one's own; the wait for it is the queue."""
        async with contextlib.AsyncExitStack() as held:
            with self._tally.queue():
                if costly:
                    await held.enter_async_context(self._places_for_costly)
                idle = self._idle_slow if costly and not self._idle_slow.empty() else self._idle
                slot = await idle.get()
            try:
                yield slot
            finally:
                idle.put_nowait(slot)


def _or_raise(reply: wire.Reply, name: str) -> wire.Reply:
    match reply:
        case wire.Refused(message=message):
            raise InputError(f"{name}: {message}")
        case wire.Broken(message=message, starved=True):
            raise Starved(f"{name}: {message}")
        case wire.Broken(message=message):
            raise VerifierError(f"{name}: {message}")
    return reply


class _Slot:
    """A place for one worker process, which comes and goes.

    `raising` lets one successor start at a time: workers that began together also reach their share together.
    """

    def __init__(
        self, config: Verify, program: tuple[str, ...], *, nice: int, raising: asyncio.Semaphore
    ) -> None:
        self._config = config
        self._nice = nice
        self._raising = raising
        self._program = program
        self._worker: WorkerProcess | None = None
        self._successor: asyncio.Task[WorkerProcess] | None = None
        self._dismissed: list[WorkerProcess] = []

    async def ask(self, request: wire.Request) -> wire.Reply:
        """As WorkerProcess.ask, on a worker that is up and has the verifier loaded."""
        self._hand_over()
        if self._worker is None or not self._worker.is_alive:
            self.stop()
            self._worker = await WorkerProcess.start(self._config, self._program, nice=self._nice)
        worker = self._worker
        if isinstance(request, wire.Load) or request.verifier not in worker.loaded:
            reply = await worker.ask(wire.Load(request.verifier), LOAD_TIMEOUT_S)
            if not isinstance(reply, wire.Done):
                return reply
            worker.loaded.add(request.verifier)
            if isinstance(request, wire.Load):
                return reply
        worker.num_jobs += 1
        return await worker.ask(request, self._config.deadline_s)

    def recycle(self) -> None:
        """Has a worker that has done its share replaced, as soon as another one is up."""
        self._dismissed = [worker for worker in self._dismissed if not worker.is_reaped]
        worker = self._worker
        if worker and worker.num_jobs >= self._config.jobs_per_worker and not self._successor:
            self._successor = asyncio.create_task(self._raise_successor(set(worker.loaded)))

    def stop(self) -> None:
        """Nothing of it stays."""
        successor, self._successor = self._successor, None
        if successor and not successor.cancel() and successor.exception() is None:
            successor.result().kill()
        if self._worker is not None:
            self._dismissed.append(self._worker)
            self._worker = None
        while self._dismissed:
            self._dismissed.pop().kill()

    def _hand_over(self) -> None:
        """The successor, if it is up, takes the place of the worker; if it broke, nobody does for now."""
        if self._successor is None or not self._successor.done():
            return
        successor, self._successor = self._successor, None
        if self._worker is not None:
            self._worker.dismiss()
            self._dismissed.append(self._worker)
        self._worker = successor.result() if successor.exception() is None else None

    async def _raise_successor(self, verifiers: set[str]) -> WorkerProcess:
        """A worker with these verifiers loaded; importing their libraries takes longer than many jobs."""
        async with self._raising:
            worker = await WorkerProcess.start(self._config, self._program, nice=self._nice)
            with contextlib.ExitStack() as undo:
                undo.callback(worker.kill)
                for verifier in sorted(verifiers):
                    load = wire.Load(verifier, aside=True)
                    _or_raise(await worker.ask(load, LOAD_TIMEOUT_S), f"verifier {verifier}")
                    worker.loaded.add(verifier)
                undo.pop_all()
            return worker


def _name(problem: Problem) -> str:
    return f"problem {problem.id} ({problem.source}, verifier {problem.verifier})"
