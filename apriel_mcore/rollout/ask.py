"""One problem becomes one group: G answers sampled and judged, within a deadline.

A rollout whose server or judge failed does not exist; the survivors are the group if enough remain. But
where the answer decides whether its verdict comes, the survivors would be a biased sample: one that the model
judge did not decide on, or that waited for its verdict at the deadline, takes its group with it.
"""

import asyncio
from collections import Counter
from typing import Any

from apriel_mcore.config.schema import RunConfig
from apriel_mcore.data.sampler import Ticket
from apriel_mcore.errors import NoOpinion, VerifierError
from apriel_mcore.obs.spans import timed
from apriel_mcore.rollout.reference import Scorer
from apriel_mcore.seams import Judge, Pool, Sampling
from apriel_mcore.types import Group, Problem, Rollout, Verdict


class Asker:
    """Turns tickets into groups; counts what was lost on the way, by cause."""

    def __init__(self, pool: Pool, judge: Judge, scorer: Scorer) -> None:
        self._pool = pool
        self._judge = judge
        self._scorer = scorer
        self._being_judged: set[asyncio.Task[Any] | None] = set()
        self.lost: Counter[str] = Counter()

    async def group(self, ticket: Ticket, problem: Problem, recipe: RunConfig) -> Group | None:
        """The finished group, with what its rewards are made of; None when it cannot be had.

        That is when too few rollouts survived (rollout.min_group), or those that did are a biased sample.
        """
        rollout_config = recipe.rollout
        sampling = training_sampling(recipe, problem.domain)
        tasks = [
            asyncio.create_task(self.rollout(problem, sampling)) for _ in range(rollout_config.group_size)
        ]
        try:
            done, late = await asyncio.wait(tasks, timeout=rollout_config.group_deadline_s)
        except asyncio.CancelledError:
            await _cancel(tasks)
            raise
        self.lost["deadline"] += len(late)
        biased = any(task in self._being_judged for task in late)
        await _cancel(list(late))
        outcomes = await asyncio.gather(*(task for task in tasks if task in done), return_exceptions=True)
        rollouts_G = tuple(rollout for outcome in outcomes if (rollout := self._survivor(outcome)))
        if biased or any(isinstance(outcome, NoOpinion) for outcome in outcomes):
            self.lost["with_its_group"] += len(rollouts_G)
            return None
        if len(rollouts_G) < rollout_config.fewest_survivors:
            return None
        oldest = min(rollout.version_first for rollout in rollouts_G)
        group = Group(
            id=ticket.group_id,
            problem=problem,
            rollouts_G=rollouts_G,
            version=oldest,
            attempt=ticket.attempt,
            temperature=sampling.temperature,
        )
        return await self._scored(group, recipe)

    def metrics(self) -> dict[str, float]:
        """`lost.CAUSE` rollouts so far, and `verify.*` of the judges."""
        lost = {f"lost.{cause}": float(count) for cause, count in self.lost.items()}
        return lost | {f"verify.{name}": number for name, number in self._judge.metrics().items()}

    async def rollout(self, problem: Problem, sampling: Sampling) -> Rollout:
        """One answer with its verdict; raises VerifierError or PoolError."""
        completion = await self._pool.generate(problem.prompt_T, sampling)
        with timed("judge", lane=f"judges of {problem.domain}"):
            verdict = await self._verdict(problem, problem.whole(completion.text))
        return Rollout(
            tokens_T=completion.tokens_T,
            logprobs_T=completion.logprobs_T,
            text=completion.text,
            finish=completion.finish,
            version_first=completion.version_first,
            version_last=completion.version_last,
            verdict=verdict,
            seconds=completion.seconds,
            server=completion.server,
        )

    async def _scored(self, group: Group, recipe: RunConfig) -> Group | None:
        """The group with its reference scores; None when they are late."""
        try:
            async with asyncio.timeout(recipe.rollout.group_deadline_s):
                return await self._scorer.scored(group, recipe)
        except TimeoutError:
            self.lost["reference"] += len(group.rollouts_G)
            return None

    async def _verdict(self, problem: Problem, text: str) -> Verdict:
        task = asyncio.current_task()
        self._being_judged.add(task)
        try:
            return await self._judge.grade(problem, text)
        finally:
            self._being_judged.discard(task)

    def _survivor(self, outcome: Rollout | BaseException) -> Rollout | None:
        """The rollout, or None if its judge broke; any other error ends the run."""
        if isinstance(outcome, VerifierError):
            self.lost["judge"] += 1
            return None
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


def training_sampling(recipe: RunConfig, domain: str) -> Sampling:
    """How a domain is sampled for training: its own budget, no top-p."""
    return Sampling(
        max_tokens=recipe.budget_of(domain),
        temperature=recipe.rollout.temperature,
        stop=tuple(recipe.rollout.stop),
    )


async def _cancel(tasks: "list[asyncio.Task[Rollout]]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
