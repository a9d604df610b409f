"""Which problems does a run train on, and which does it only ever measure?

sources -> items -> system + suffix -> render -> contaminated? too long? asked before? -> split -> Dataset
            rows of which none can be made ---------------------- set aside, counted by reason --'
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import msgspec

from apriel_mcore.config.schema import (
    BfclSource,
    CollectedSource,
    Domain,
    JsonlSource,
    KeepNearDuplicates,
    NearDuplicates,
    PuzzleSource,
    RunConfig,
    Source,
)
from apriel_mcore.data import jsonl, layouts, overlap, rows, templates
from apriel_mcore.data.item import Item, Tool, Unusable
from apriel_mcore.data.layouts import bfcl
from apriel_mcore.data.near_duplicates import Asked, near_duplicates
from apriel_mcore.data.overlap import Benchmarks
from apriel_mcore.data.templates import puzzles
from apriel_mcore.errors import InputError
from apriel_mcore.types import Message, Problem


class RendersChat(Protocol):
    """What is needed of data/prompts.py's Renderer."""

    prefill: str

    def render(self, messages: Sequence[Message], *, tools: Sequence[Tool] = ()) -> tuple[int, ...]:
        """Token ids of the chat, with the functions it offers and the header of the answer after it."""
        ...


class Reject(msgspec.Struct, frozen=True, kw_only=True):
    """A row that the run does not use, and why."""

    domain: str
    source: str
    place: str
    """file:line where rows have one, else the beginning of the prompt."""
    reason: str
    detail: str = ""


class Dataset(msgspec.Struct, frozen=True, kw_only=True):
    """All problems of a run, by domain in recipe order. No `split_key` is in both parts."""

    train: dict[str, tuple[Problem, ...]]
    held_out: dict[str, tuple[Problem, ...]]
    rejects: tuple[Reject, ...]

    @property
    def rejected(self) -> dict[str, dict[str, int]]:
        """Rows dropped, by domain and reason."""
        return {
            name: dict(Counter(reject.reason for reject in self.rejects if reject.domain == name))
            for name in self.train
        }


class _Candidate(NamedTuple):
    problem: Problem
    place: str
    question: tuple[str, ...]
    """What was asked, without the recipe's system prompt and suffix: the same in every domain."""
    part: Literal["split", "train", "held_out"]


def load(config: RunConfig, renderer: RendersChat) -> Dataset:
    """Every problem of every source, deterministic in the recipe.

    InputError naming the recipe key for a source that cannot be used, and for a domain with a ratio
    that is left without a problem to train on.
    """
    benchmarks = overlap.open_benchmarks(config.data.decontaminate)
    admitted: list[_Candidate] = []
    rejects: list[Reject] = []
    seen: dict[tuple[str, ...], str] = {}
    for name, domain in config.domains.items():
        longest = _longest(config, name)
        for candidate in _candidates(name, domain, renderer):
            if isinstance(candidate, _Candidate):
                candidate = _admit(candidate, longest, seen, benchmarks)
            if isinstance(candidate, Reject):
                rejects.append(candidate)
            else:
                admitted.append(candidate)
    kept, near = _without_near_duplicates(admitted, config.data.near_duplicates)
    train: dict[str, tuple[Problem, ...]] = {}
    held_out: dict[str, tuple[Problem, ...]] = {}
    for name in config.domains:
        asked = [candidate for candidate in kept if candidate.problem.domain == name]
        is_held_out = [_is_held_out(candidate, config.data.held_out) for candidate in asked]
        train[name] = tuple(c.problem for c, is_out in zip(asked, is_held_out, strict=True) if not is_out)
        held_out[name] = tuple(c.problem for c, is_out in zip(asked, is_held_out, strict=True) if is_out)
    dataset = Dataset(train=train, held_out=held_out, rejects=(*rejects, *near))
    require_problems(config, dataset)
    return dataset


def every(name: str, domain: Domain, renderer: RendersChat) -> tuple[list[Problem], list[Reject]]:
    """All problems of a domain as a benchmark has them: not split, each once; and the rows that are none."""
    found: dict[str, Problem] = {}
    rejects: list[Reject] = []
    for candidate in _candidates(name, domain, renderer):
        if isinstance(candidate, Reject):
            rejects.append(candidate)
        else:
            found.setdefault(candidate.problem.id, candidate.problem)
    return list(found.values()), rejects


def require_problems(config: RunConfig, dataset: Dataset) -> None:
    """InputError for a domain with a ratio that has no problem to train on."""
    for name, domain in config.domains.items():
        if domain.ratio > 0 and not dataset.train[name]:
            first = next((f"; first: {r.place}: {r.detail}" for r in dataset.rejects if r.domain == name), "")
            rejected = dataset.rejected[name]
            remedy = "add rows, or correct the source's layout"
            raise InputError(
                f"domains.{name}: no problem is left to train on (rejected: {rejected}{first}): "
                + (_more_room(config, name) if "too_long" in rejected else remedy)
            )


def _more_room(config: RunConfig, name: str) -> str:
    room, budget = _room(config), _budget(config, name)
    least = min(room.values())
    keys = " and ".join(key for key, length in room.items() if length == least)
    return (
        f"{keys} = {least} less domains.{name}'s output budget of {budget} leaves {least - budget} tokens "
        "to a prompt; raise the one or lower the other"
    )


def _longest(config: RunConfig, name: str) -> int:
    """Tokens that a prompt of a domain may have."""
    return min(_room(config).values()) - _budget(config, name)


def _room(config: RunConfig) -> dict[str, int]:
    """Tokens that a prompt and its answer may have, by the key that says so."""
    return {
        "train.seq_len": config.train.seq_len,
        "rollout.servers.max_model_len": config.rollout.servers.max_model_len,
    }


def _budget(config: RunConfig, name: str) -> int:
    """The most that a stage gives the answers of a domain."""
    return max(stage.budget_of(name) for stage in config.stages())


def set_aside(dataset: Dataset, refused: Mapping[str, str]) -> Dataset:
    """The dataset without the problems whose gold was refused (id to message), which become rejects."""
    problems = [p for part in (dataset.train, dataset.held_out) for found in part.values() for p in found]
    more = [
        Reject(
            domain=p.domain,
            source=p.source,
            place=_beginning(p),
            reason="gold_refused",
            detail=refused[p.id],
        )
        for p in problems
        if p.id in refused
    ]

    def without(part: dict[str, tuple[Problem, ...]]) -> dict[str, tuple[Problem, ...]]:
        return {name: tuple(p for p in found if p.id not in refused) for name, found in part.items()}

    return Dataset(
        train=without(dataset.train), held_out=without(dataset.held_out), rejects=(*dataset.rejects, *more)
    )


def write_rejects(dataset: Dataset, file: Path) -> None:
    """All rejects, one JSON object a line."""
    encode = msgspec.json.Encoder().encode_lines
    file.write_bytes(encode(dataset.rejects))


def _candidates(domain_name: str, domain: Domain, renderer: RendersChat) -> Iterator[_Candidate | Reject]:
    for source_name, source in domain.sources.items():
        part = source.part if isinstance(source, CollectedSource) else "split"
        try:
            for place, item in _items(source):
                if isinstance(item, Unusable):
                    yield Reject(
                        domain=domain_name,
                        source=source_name,
                        place=place,
                        reason=item.reason,
                        detail=item.detail[:500],
                    )
                    continue
                problem = _problem(domain_name, source_name, domain, item, renderer)
                question = (*_normal_form(item.messages), _shown(item.tools))
                yield _Candidate(problem, place or _beginning(problem), question, part)
        except InputError as error:
            raise InputError(f"domains.{domain_name}.sources.{source_name}: {error}") from error


def _items(source: Source) -> Iterator[tuple[str, Item | Unusable]]:
    """Each item with its place, or what is wrong with the row at that place."""
    if isinstance(source, BfclSource):
        yield from bfcl.read(source)
    elif isinstance(source, PuzzleSource):
        yield from puzzles.read(source)
    elif isinstance(source, CollectedSource):
        for place, row in rows.read(source):
            try:
                yield place, row if isinstance(row, Unusable) else layouts.item(source.layout, row)
            except Unusable as reason:
                yield place, reason
    else:
        made = jsonl.items(source) if isinstance(source, JsonlSource) else templates.items(source)
        yield from (("", item) for item in made)


def _problem(
    domain_name: str, source_name: str, domain: Domain, item: Item, renderer: RendersChat
) -> Problem:
    functions = _shown(item.tools) if domain.tools == "system" else ""
    messages = _dress(item.messages, domain, functions)
    tools = item.tools if domain.tools == "template" else ()
    return Problem(
        id=_hash(source_name, *_normal_form(messages), *([_shown(tools)] if tools else []))[:16],
        domain=domain_name,
        source=source_name,
        messages=messages,
        verifier=item.verifier,
        reference=item.reference,
        split_key=item.split_key,
        level=item.level,
        prompt_T=renderer.render(messages, tools=tools),
        prefill=renderer.prefill,
    )


def _shown(tools: Sequence[Tool]) -> str:
    """Functions as a text for models whose template has no place for them."""
    if not tools:
        return ""
    functions = "\n".join(json.dumps(tool["function"]) for tool in tools)
    return (
        f"<available_tools>\n{functions}\n</available_tools>\nCall them as a JSON list in "
        '<tool_calls>[{"name": ..., "arguments": {...}}]</tool_calls>.'
    )


def _dress(messages: tuple[Message, ...], domain: Domain, functions: str) -> tuple[Message, ...]:
    """The recipe's system prompt, unless the row has its own, functions after it, and the recipe's suffix."""
    has_own = messages[0].role == "system"
    system = messages[0].content if has_own else domain.system
    system = "\n".join(part for part in (system, functions) if part)
    turns = messages[1:] if has_own else messages
    last = Message(turns[-1].role, turns[-1].content + domain.suffix)
    head = (Message("system", system),) if system or has_own else ()
    return (*head, *turns[:-1], last)


def _admit(
    candidate: _Candidate, longest: int, seen: dict[tuple[str, ...], str], benchmarks: Benchmarks
) -> _Candidate | Reject:
    """The candidate, unless it was asked before in any domain, is in a benchmark, or does not fit.

    Only what is admitted counts as asked: the budget of another domain may leave it room.
    """
    problem = candidate.problem
    reject = Reject(domain=problem.domain, source=problem.source, place=candidate.place, reason="")
    if candidate.question in seen:
        detail = f"of a prompt in {seen[candidate.question]}"
        return msgspec.structs.replace(reject, reason="duplicate", detail=detail)
    turns = (turn.partition(": ")[2] for turn in candidate.question[:-1])
    if match := next(filter(None, map(benchmarks.match, turns)), None):
        detail = f"{match.benchmark}: {match.words}"
        return msgspec.structs.replace(reject, reason="contaminated", detail=detail)
    if len(problem.prompt_T) > longest:
        detail = f"{len(problem.prompt_T)} tokens, {longest} allowed"
        return msgspec.structs.replace(reject, reason="too_long", detail=detail)
    seen[candidate.question] = _whence(candidate)
    return candidate


def _without_near_duplicates(
    admitted: Sequence[_Candidate], settings: NearDuplicates
) -> tuple[Sequence[_Candidate], list[Reject]]:
    """What asks something new, and the rejects that ask nearly what an earlier one of any domain asks.

    The order is kept within each domain.
    """
    if isinstance(settings, KeepNearDuplicates):
        return admitted, []
    among = settings.domains
    asked = [c for c in admitted if not among or c.problem.domain in among]
    others = [c for c in admitted if among and c.problem.domain not in among]
    near = near_duplicates([_asked(c) for c in asked], ngram=settings.ngram, threshold=settings.threshold)
    rejects = [_near_reject(asked[number], asked[of], share) for number, (of, share) in near.items()]
    return [*others, *(c for number, c in enumerate(asked) if number not in near)], rejects


def _asked(candidate: _Candidate) -> Asked:
    """The last turn; the turns before it and the functions are its context."""
    *before, last, functions = candidate.question
    role, _, text = last.partition(": ")
    return Asked("\0".join((*before, role, functions)), text)


def _near_reject(candidate: _Candidate, first: _Candidate, share: float) -> Reject:
    return Reject(
        domain=candidate.problem.domain,
        source=candidate.problem.source,
        place=candidate.place,
        reason="near_duplicate",
        detail=f"of a prompt in {_whence(first)}: {share:.0%} shared with {first.place}",
    )


def _whence(candidate: _Candidate) -> str:
    return f"domains.{candidate.problem.domain}.sources.{candidate.problem.source}"


def _beginning(problem: Problem) -> str:
    return f"{problem.id}: {problem.messages[-1].content[:80]!r}"


def _normal_form(messages: tuple[Message, ...]) -> tuple[str, ...]:
    """Role and text of each turn, runs of white space folded."""
    return tuple(f"{message.role}: {' '.join(message.content.split())}" for message in messages)


def _is_held_out(candidate: _Candidate, share: float) -> bool:
    if candidate.part == "split":
        return _position(candidate.problem) < share
    return candidate.part == "held_out"


def _position(problem: Problem) -> float:
    """Where in [0, 1) the content of a problem falls, the same in every run and recipe."""
    return int(_hash(problem.split_key)[:13], 16) / 16**13


def _hash(*parts: str) -> str:
    return sha256("\0".join(parts).encode()).hexdigest()
