"""Which problems' own gold does their judge refuse? Asked once, before a run trains on them."""

import asyncio
from contextlib import suppress
from typing import Protocol

from apriel_mcore.config.schema import CollectedSource, RunConfig
from apriel_mcore.data.problems import Dataset
from apriel_mcore.errors import InputError, VerifierError
from apriel_mcore.types import Problem

_ATTEMPTS = 3


class ChecksGold(Protocol):
    """What is needed of the judges."""

    async def self_check(self, problem: Problem) -> None:
        """InputError when the gold does not satisfy its judge; VerifierError when that broke."""
        ...


async def refused(config: RunConfig, dataset: Dataset, judge: ChecksGold) -> dict[str, str]:
    """Ids of the collected problems whose gold is refused, with the judge's message.

    InputError for a problem that was written for this run or generated: its author is here to correct it.
    VerifierError when the judge breaks again and again on one of those.
    """
    parts = [*dataset.train.values(), *dataset.held_out.values()]
    problems = [problem for part in parts for problem in part]
    found = await asyncio.gather(*(_refusal(config, problem, judge) for problem in problems))
    return {problem.id: text for problem, text in zip(problems, found, strict=True) if text}


async def refusal(problem: Problem, judge: ChecksGold) -> str:
    """Why a problem's gold is refused; empty where it is accepted."""
    try:
        await _check(problem, judge)
    except (InputError, VerifierError) as error:
        return str(error)
    return ""


async def _refusal(config: RunConfig, problem: Problem, judge: ChecksGold) -> str:
    if isinstance(config.domains[problem.domain].sources[problem.source], CollectedSource):
        return await refusal(problem, judge)
    await _check(problem, judge)
    return ""


async def _check(problem: Problem, judge: ChecksGold) -> None:
    """A judge that breaks says nothing about the problem: asked again, then given up on."""
    for _ in range(_ATTEMPTS - 1):
        with suppress(VerifierError):
            return await judge.self_check(problem)
    return await judge.self_check(problem)
