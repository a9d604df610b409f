r"""How likely does the policy find the reference answer after its own reasoning? The servers are asked.

    rollout:   prompt | reasoning ... \boxed{ | its answer }
    asked:     prompt | reasoning ... \boxed{ | reference        log pi of these tokens, for each rollout
    and once:  prompt | \boxed{ | reference                      what it has without reasoning
    on demand: prompt | reasoning ... \boxed{ | its answer       how likely it finds its own

The reasoning is the very tokens that were sampled; only what lies between the last whole token before the
answer and the answer itself is tokenised again, together with the reference. Siblings with one reasoning
share a request. All requests of a group go out together, once it is complete, so they are answered by the
weights of that time; a swap in between can part them by one version.

Shape suffixes: _T tokens, _G the rollouts of one group.
"""

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import msgspec

from apriel_mcore.config.schema import (
    NoDeviation,
    NoReferenceReward,
    ReferenceProbability,
    RunConfig,
)
from apriel_mcore.data.problems import Dataset
from apriel_mcore.errors import InputError
from apriel_mcore.seams import Pool
from apriel_mcore.types import Group, Problem
from apriel_mcore.verify.answer import END, final_answer, last_boxed

_SPARE_TOKENS = 8
"""That a retokenised lead may have more than the text that it replaces."""


class Tokenizer(Protocol):
    """What is needed of data/prompts.py's Renderer."""

    def encode_with_ends(self, text: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Token ids, and where in the text each token ends."""
        ...

    def decode(self, tokens_T: Sequence[int]) -> str:
        """Text without special tokens."""
        ...


class Scorer(Protocol):
    """What a group needs before it can be rewarded, beside its verdicts."""

    async def scored(self, group: Group, recipe: RunConfig) -> Group:
        """The group with its scores."""
        ...


class NoScorer:
    """For recipes whose rewards come of verdicts alone."""

    async def scored(self, group: Group, recipe: RunConfig) -> Group:
        """The group as it is."""
        return group


class Cut(NamedTuple):
    """Where the answer of a rollout begins."""

    reasoning_T: tuple[int, ...]
    """Its tokens that end before the answer."""
    lead: str
    """Text between these and the answer."""


class ReferenceScorer:
    """Scores the groups of the domains that have a reference reward."""

    def __init__(self, pool: Pool, tokenizer: Tokenizer) -> None:
        self._pool = pool
        self._tokenizer = tokenizer

    async def scored(self, group: Group, recipe: RunConfig) -> Group:
        """The group with `reference_logprobs_T` and `alone_logprobs_T`, and `own_logprobs_T` for a deviation.

        PoolError when no server is left.
        """
        settings = recipe.domains[group.problem.domain].reference_reward
        if isinstance(settings, NoReferenceReward):
            return group
        texts_G = [rollout.text for rollout in group.rollouts_G]
        cut_G = [
            await asyncio.to_thread(
                cut, rollout.tokens_T, rollout.text, settings.after, self._tokenizer.decode
            )
            for rollout in group.rollouts_G
        ]
        own_G = [own_answer(text, settings) for text in texts_G]
        answer = reference_answer(group.problem, settings)
        alone = (Cut((), settings.after + blanks_after(texts_G, settings.after)), answer)
        wanted = dict.fromkeys([alone, *((found, answer) for found in cut_G if found)])
        wanted |= dict.fromkeys(
            (found, own) for found, own in zip(cut_G, own_G, strict=True) if found and own
        )
        scores = await asyncio.gather(*(self._ask(group.problem, *asked) for asked in wanted))
        logprobs = dict(zip(wanted, scores, strict=True))
        return msgspec.structs.replace(
            group,
            alone_logprobs_T=logprobs[alone],
            rollouts_G=tuple(
                msgspec.structs.replace(
                    rollout,
                    reference_logprobs_T=logprobs[found, answer] if found else (),
                    own_logprobs_T=logprobs[found, own] if found and own else (),
                )
                for rollout, found, own in zip(group.rollouts_G, cut_G, own_G, strict=True)
            ),
        )

    async def _ask(self, problem: Problem, found: Cut, answer: str) -> tuple[float, ...]:
        """log pi of the answer's tokens after the prompt, the reasoning and its lead."""
        ids_T, ends_T = self._tokenizer.encode_with_ends(found.lead + answer)
        num = sum(end > len(found.lead) for end in ends_T)
        scores_T = await self._pool.logprobs((*problem.prompt_T, *found.reasoning_T, *ids_T))
        return tuple(scores_T[-num:])


def cut(tokens_T: Sequence[int], text: str, after: str, decode: Callable[[Sequence[int]], str]) -> Cut | None:
    """Where the answer begins: after the last `after` and white space; None where that stands nowhere."""
    place = text.rfind(after)
    if place < 0:
        return None
    start = place + len(after) + len(blanks_after([text], after))
    num = bisect_right(range(len(tokens_T) + 1), start, key=lambda count: len(decode(tokens_T[:count]))) - 1
    while not text.startswith(head := decode(tokens_T[:num])):  # half a character, or a special token
        num -= 1
    return Cut(tuple(tokens_T[:num]), text[len(head) : start])


def blanks_after(texts: Sequence[str], after: str) -> str:
    """The white space between the last `after` and what follows it, in the first text that has it."""
    for text in texts:
        _, found, answer = text.rpartition(after)
        if found:
            return answer[: len(answer) - len(answer.lstrip())]
    return ""


def own_answer(text: str, settings: ReferenceProbability) -> str:
    """What a rollout has in the place of the reference: its box, or all behind `settings.after`.

    Empty where it has none, and where deviations earn nothing.
    """
    if isinstance(settings.deviation, NoDeviation):
        return ""
    _, found, tail = text.rpartition(settings.after)
    if settings.after == "\\boxed{":
        return last_boxed(found + tail)
    return tail.partition(END)[0].strip() if found else ""


def reference_answer(problem: Problem, settings: ReferenceProbability) -> str:
    """The gold as it would stand after `settings.after`; InputError where the problem has no such text."""
    if problem.verifier in ("math", "text"):
        answer = str(problem.reference.get("answer", ""))
    else:
        gold = final_answer(str(problem.reference.get("gold", "")))
        _, found, tail = gold.rpartition(settings.after)
        answer = last_boxed(gold) if settings.after == "\\boxed{" else tail.strip() if found else gold
    if not answer:
        raise InputError(
            f"problem {problem.id} ({problem.source}): no reference answer to score; "
            f"domains.{problem.domain}.reference_reward needs one in every problem"
        )
    return answer


def require_references(config: RunConfig, dataset: Dataset, tokenizer: Tokenizer) -> None:
    """InputError for a problem without a reference text, or whose reference would not fit into a server."""
    room = config.rollout.servers.max_model_len - 1
    for name, domain in config.domains.items():
        settings = domain.reference_reward
        if isinstance(settings, NoReferenceReward):
            continue
        budget = max(stage.budget_of(name) for stage in config.stages())
        for problem in dataset.train[name]:
            answer = reference_answer(problem, settings)
            num = len(tokenizer.encode_with_ends(settings.after + answer)[0]) + _SPARE_TOKENS
            if len(problem.prompt_T) + budget + num > room:
                raise InputError(
                    f"problem {problem.id} ({problem.source}): its reference answer does not fit behind "
                    f"prompt and reasoning; raise rollout.servers.max_model_len to "
                    f"{len(problem.prompt_T) + budget + num + 1} or more"
                )
