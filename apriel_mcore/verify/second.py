"""Was the rule too strict? A model judge after the rules, for the answers that they do not accept.

    grade --rules--> correct, missing, not to be shown ---------------------> their verdict
                '--> wrong, unparsable --endpoint.py--> yes: correct | no: the rules' verdict
                                                   '--> none: NoOpinion, the whole group is asked again

Only answers that the rules refuse are asked about, so an endpoint that fails would leave a group with its
right answers alone. That is why NoOpinion costs the group and not the one rollout.
"""

import time
from collections import defaultdict, deque
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Protocol, Self

import msgspec

from apriel_mcore.config.schema import EndpointJudge
from apriel_mcore.errors import NoOpinion
from apriel_mcore.types import Problem, Verdict
from apriel_mcore.verify.endpoint import Endpoint
from apriel_mcore.verify.opinion import Dispute, dispute, may_be_shown

_WINDOW = 2048


class Opinions(msgspec.Struct):
    """What became of the answers of one domain that the rules refused."""

    asked: int = 0
    remembered: int = 0
    """Of those asked, decided before."""
    yes: int = 0
    no: int = 0
    unclear: int = 0
    """Replies that decide nothing; no verdict."""
    failed: int = 0
    """No reply in time, or none at all; no verdict."""
    not_shown: int = 0
    """Too long, or addressed to the judge: the rules' verdict stood."""


class Rules(Protocol):
    """The judge before: VerifierPool or RemoteVerifiers."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

    async def grade(self, problem: Problem, text: str) -> Verdict:
        """As VerifierPool.grade."""
        ...

    async def self_check(self, problem: Problem) -> None:
        """As VerifierPool.self_check."""
        ...

    def metrics(self) -> dict[str, float]:
        """As VerifierPool.metrics."""
        ...


class SecondOpinion:
    """The seam `Judge`: the rules, then the endpoint. Use as `async with`."""

    def __init__(self, rules: Rules, config: EndpointJudge, *, token: str) -> None:
        self._rules = rules
        self._config = config
        self._endpoint = Endpoint(config, token=token)
        self._opinions = {domain: Opinions() for domain in config.domains}
        self._seconds: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_WINDOW))
        self._waiting = 0

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as undo:
            await undo.enter_async_context(self._rules)
            await undo.enter_async_context(self._endpoint)
            await self._endpoint.probe()
            self._open = undo.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._open.aclose()

    async def grade(self, problem: Problem, text: str) -> Verdict:
        """As VerifierPool.grade; NoOpinion where the endpoint was needed and did not decide."""
        verdict = await self._rules.grade(problem, text)
        if problem.domain not in self._opinions or verdict.status not in self._config.ask_when:
            return verdict
        asked = self._dispute(problem, text)
        if not may_be_shown(asked.answer, longest=self._config.answer_chars):
            self._opinions[problem.domain].not_shown += 1
            return verdict
        if await self._agrees(problem, asked):
            return Verdict(score=1.0, success=True, status="correct", detail="by the model judge")
        return verdict

    async def self_check(self, problem: Problem) -> None:
        """As VerifierPool.self_check; InputError also for a verifier that a model cannot stand in for."""
        if problem.domain in self._opinions:
            self._dispute(problem, "")
        await self._rules.self_check(problem)

    def metrics(self) -> dict[str, float]:
        """The rules' own, and `model.queue`, `model.requests`, `model.DOMAIN.COUNT`, `.p50_s`, `.p99_s`."""
        numbers = self._rules.metrics()
        numbers["model.queue"] = float(self._waiting)
        numbers["model.requests"] = float(self._endpoint.num_requests)
        for domain, opinions in self._opinions.items():
            counts = msgspec.structs.asdict(opinions)
            numbers |= {f"model.{domain}.{name}": float(value) for name, value in counts.items()}
            if seconds := sorted(self._seconds[domain]):
                numbers[f"model.{domain}.p50_s"] = seconds[len(seconds) // 2]
                numbers[f"model.{domain}.p99_s"] = seconds[len(seconds) * 99 // 100]
        return numbers

    def _dispute(self, problem: Problem, text: str) -> Dispute:
        return dispute(problem, text, question_chars=self._config.question_chars)

    async def _agrees(self, problem: Problem, asked: Dispute) -> bool:
        opinions, start = self._opinions[problem.domain], time.monotonic()
        opinions.asked += 1
        opinions.remembered += self._endpoint.knows(asked)
        self._waiting += 1
        try:
            said = await self._endpoint.decide(asked)
        except NoOpinion:
            opinions.failed += 1
            raise
        finally:
            self._waiting -= 1
            self._seconds[problem.domain].append(time.monotonic() - start)
        match said:
            case "yes":
                opinions.yes += 1
            case "no":
                opinions.no += 1
            case "unclear":
                opinions.unclear += 1
                raise NoOpinion(f"problem {problem.id}: the model judge did not decide on {asked.answer!r}")
        return said == "yes"
