"""All judges behind one door: who is asked, for how long, and what happens when a judge breaks.

    grade(problem, text) --idle worker--> Load (once) --> Grade --> Verdict
                              ^                             |
                              '---- killed and replaced ----'  crash or deadline: counted, VerifierError

Consumes: idle workers, from a queue; callers wait there, which is the back-pressure on the feed.
Unblocked by: a reply, or the deadline, or the worker's death. A job cannot wait for ever.
Produces: a verdict, or VerifierError, which loses the rollout and never becomes a reward of 0.
"""

import asyncio
from collections import defaultdict
from types import TracebackType
from typing import Self

import msgspec

from apriel_mcore.config.schema import Verify
from apriel_mcore.errors import InputError, VerifierError
from apriel_mcore.types import Problem, Verdict
from apriel_mcore.verify import wire
from apriel_mcore.verify.process import WORKER, WorkerDied, WorkerProcess

LOAD_TIMEOUT_S = 120.0
"""For importing a verifier's libraries: seconds on an idle machine, and not the answer's fault."""
JOBS_PER_WORKER = 5000
"""Then a fresh process: parsers and caches leak."""


class Counts(msgspec.Struct):
    """What became of one domain's jobs."""

    graded: int = 0
    crashed: int = 0
    timed_out: int = 0


class VerifierPool:
    """The seam `Judge` over `config.workers` killable processes. Use as `async with`."""

    def __init__(
        self,
        config: Verify,
        *,
        program: tuple[str, ...] = WORKER,
        jobs_per_worker: int = JOBS_PER_WORKER,
    ) -> None:
        self._config = config
        self._program = program
        self._jobs_per_worker = jobs_per_worker
        self._slots: list[_Slot] = []
        self._idle: asyncio.Queue[_Slot] = asyncio.Queue()
        self._counts: defaultdict[str, Counts] = defaultdict(Counts)

    async def __aenter__(self) -> Self:
        self._slots = [_Slot(self._config, self._program) for _ in range(self._config.workers)]
        for slot in self._slots:
            self._idle.put_nowait(slot)
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
        reply = await self._run(problem, wire.Grade(problem.verifier, problem.reference, text))
        if not isinstance(reply, wire.Graded):
            raise VerifierError(f"{_name(problem)}: expected a verdict, got {reply}")
        self._counts[problem.domain].graded += 1
        return reply.verdict

    async def self_check(self, problem: Problem) -> None:
        """InputError unless the problem can be judged and its gold, derived or given as `gold`, verifies."""
        await self._run(problem, wire.Check(problem.verifier, problem.reference))

    def counts(self) -> dict[str, Counts]:
        """Jobs per domain so far."""
        return {domain: msgspec.structs.replace(counts) for domain, counts in self._counts.items()}

    async def _run(self, problem: Problem, request: wire.Request) -> wire.Reply:
        slot = await self._idle.get()
        try:
            reply = await slot.ask(request)
        except TimeoutError as error:
            self._counts[problem.domain].timed_out += 1
            raise VerifierError(f"{_name(problem)}: no verdict within the deadline; worker killed") from error
        except WorkerDied as error:
            self._counts[problem.domain].crashed += 1
            raise VerifierError(f"{_name(problem)}: {error}") from error
        finally:
            slot.recycle(self._jobs_per_worker)
            self._idle.put_nowait(slot)
        match reply:
            case wire.Refused(message=message):
                raise InputError(f"{_name(problem)}: {message}")
            case wire.Broken(message=message):
                self._counts[problem.domain].crashed += 1
                raise VerifierError(f"{_name(problem)}: {message}")
        return reply


class _Slot:
    """A place for one worker process, which comes and goes."""

    def __init__(self, config: Verify, program: tuple[str, ...]) -> None:
        self._config = config
        self._program = program
        self._worker: WorkerProcess | None = None

    async def ask(self, request: wire.Request) -> wire.Reply:
        """As WorkerProcess.ask, on a worker that is up and has the verifier loaded."""
        if self._worker is None or not self._worker.is_alive:
            self.stop()
            self._worker = await WorkerProcess.start(self._config, self._program)
        worker = self._worker
        if request.verifier not in worker.loaded:
            reply = await worker.ask(wire.Load(request.verifier), LOAD_TIMEOUT_S)
            if not isinstance(reply, wire.Done):
                return reply
            worker.loaded.add(request.verifier)
        worker.num_jobs += 1
        return await worker.ask(request, self._config.deadline_s)

    def recycle(self, after_jobs: int) -> None:
        """Ends a worker that has done its share."""
        if self._worker is not None and self._worker.num_jobs >= after_jobs:
            self.stop()

    def stop(self) -> None:
        """Nothing of it stays."""
        if self._worker is not None:
            self._worker.kill()
            self._worker = None


def _name(problem: Problem) -> str:
    return f"problem {problem.id} ({problem.source}, verifier {problem.verifier})"
