"""Which problems does a run train on, and which does it only ever measure?

sources -> items -> system + suffix -> render -> too long? duplicate? -> split by content hash -> Dataset
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Protocol

import msgspec

from apriel_mcore.config.schema import Domain, JsonlSource, PuzzleSource, RunConfig, Source
from apriel_mcore.data import jsonl, templates
from apriel_mcore.data.item import Item
from apriel_mcore.data.templates import puzzles
from apriel_mcore.errors import InputError
from apriel_mcore.types import Message, Problem


class RendersChat(Protocol):
    """What is needed of data/prompts.py's Renderer."""

    def render(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Token ids of the chat with the header of the answer after it."""
        ...


class Dataset(msgspec.Struct, frozen=True, kw_only=True):
    """All problems of a run, by domain in recipe order. No `split_key` is in both parts."""

    train: dict[str, tuple[Problem, ...]]
    held_out: dict[str, tuple[Problem, ...]]
    rejected: dict[str, dict[str, int]]
    """Rows dropped, by domain and reason ("duplicate", "too_long")."""


def load(config: RunConfig, renderer: RendersChat) -> Dataset:
    """Every problem of every source, deterministic in the recipe.

    InputError naming the recipe key for a source that cannot be used, and for a domain with a ratio
    that is left without a problem to train on.
    """
    room = min(config.rollout.servers.max_model_len, config.train.seq_len)
    train: dict[str, tuple[Problem, ...]] = {}
    held_out: dict[str, tuple[Problem, ...]] = {}
    rejected: dict[str, dict[str, int]] = {}
    for name, domain in config.domains.items():
        longest = room - max(stage.budget_of(name) for stage in config.stages())
        kept, dropped = _admit(_candidates(name, domain, renderer), longest)
        is_held_out = [_position(problem) < config.data.held_out for problem in kept]
        train[name] = tuple(p for p, is_out in zip(kept, is_held_out, strict=True) if not is_out)
        held_out[name] = tuple(p for p, is_out in zip(kept, is_held_out, strict=True) if is_out)
        rejected[name] = dict(dropped)
        if domain.ratio > 0 and not train[name]:
            raise InputError(
                f"domains.{name}: no problem is left to train on (rejected: {rejected[name]}; prompts may "
                f"have up to {longest} tokens): add rows, or raise rollout.servers.max_model_len and "
                "train.seq_len"
            )
    return Dataset(train=train, held_out=held_out, rejected=rejected)


def _candidates(domain_name: str, domain: Domain, renderer: RendersChat) -> Iterator[Problem]:
    for source_name, source in domain.sources.items():
        try:
            items = _items(source)
        except InputError as error:
            raise InputError(f"domains.{domain_name}.sources.{source_name}: {error}") from error
        for item in items:
            yield _problem(domain_name, source_name, domain, item, renderer)


def _items(source: Source) -> list[Item]:
    if isinstance(source, JsonlSource):
        return jsonl.items(source)
    if isinstance(source, PuzzleSource):
        return puzzles.items(source)
    return templates.items(source)


def _problem(
    domain_name: str, source_name: str, domain: Domain, item: Item, renderer: RendersChat
) -> Problem:
    messages = _dress(item.messages, system=domain.system, suffix=domain.suffix)
    return Problem(
        id=_hash(source_name, *_normal_form(messages))[:16],
        domain=domain_name,
        source=source_name,
        messages=messages,
        verifier=item.verifier,
        reference=item.reference,
        split_key=item.split_key,
        prompt_T=renderer.render(messages),
    )


def _dress(messages: tuple[Message, ...], *, system: str, suffix: str) -> tuple[Message, ...]:
    """The recipe's system prompt, unless the row has its own, and its suffix after the last turn."""
    last = Message(messages[-1].role, messages[-1].content + suffix)
    has_own = messages[0].role == "system"
    head = (Message("system", system),) if system and not has_own else ()
    return (*head, *messages[:-1], last)


def _admit(candidates: Iterator[Problem], longest: int) -> tuple[list[Problem], Counter[str]]:
    """The problems that fit and were not seen before, and how many were dropped for which reason."""
    kept: list[Problem] = []
    dropped: Counter[str] = Counter()
    seen: set[tuple[str, ...]] = set()
    for problem in candidates:
        prompt = _normal_form(problem.messages)
        if prompt in seen:
            dropped["duplicate"] += 1
        elif len(problem.prompt_T) > longest:
            dropped["too_long"] += 1
        else:
            kept.append(problem)
        seen.add(prompt)
    return kept, dropped


def _normal_form(messages: tuple[Message, ...]) -> tuple[str, ...]:
    """Role and text of each turn, runs of white space folded."""
    return tuple(f"{message.role}: {' '.join(message.content.split())}" for message in messages)


def _position(problem: Problem) -> float:
    """Where in [0, 1) the content of a problem falls, the same in every run and recipe."""
    return int(_hash(problem.split_key)[:13], 16) / 16**13


def _hash(*parts: str) -> str:
    return sha256("\0".join(parts).encode()).hexdigest()
