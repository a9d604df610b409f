"""Which of several models is better, at what length, and on which problems? From their results' counts.

    RESULT.json ... --same problems, same budget--> differences, lengths, buckets

The first result is the one that the others are compared with. Problems are paired by id, a hash of their
content: only those count that every model was asked and has a verdict on.

Shape suffixes: _R results, _P problems that they share.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from statistics import fmean

import msgspec

from apriel_mcore.errors import InputError
from apriel_mcore.evaluation.estimates import Difference, Interval, Pairs, paired_difference, ratio_interval
from apriel_mcore.evaluation.result import Point, Result, TaskResult, across

DIFFICULTIES = ("always solved", "1/3 or less fail", "2/3 or less fail", "most fail", "never solved")
"""Of problems, by the share of wrong answers of all compared models together."""
_EDGES = (Fraction(0), Fraction(1, 3), Fraction(2, 3))


class Shared(msgspec.Struct, frozen=True, kw_only=True):
    """What several results have in common at one task and budget."""

    task: str
    point: Point
    """Of the first result."""
    levels_P: list[str]
    rates_R_P: list[list[Fraction]]
    """Shares of right answers, exact: a third is an edge between two buckets."""
    tokens_R_P: list[list[float]]


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """From the first model to another, on one task or on the mean of all."""

    task: str
    budget: str
    accuracy: Difference
    tokens_ratio: Interval | None
    """Mean tokens after / mean tokens before, over all shared problems; None without tokens before."""
    tokens_ratio_solved: Interval | None
    """The same where both always solve the problem, if there is such a one: length at equal accuracy."""


class Bucket(msgspec.Struct, frozen=True, kw_only=True):
    """Some problems of a task, on all models."""

    task: str
    name: str
    num_problems: int
    accuracy_R: list[float]
    tokens_R: list[float]


def changes(before: Result, after: Result) -> list[Change]:
    """A row for each task and budget that both have; then the means over those tasks, which weigh the same.

    InputError when there is no such row.
    """
    shared = _all_shared([before, after])
    if not shared:
        raise InputError(
            f"{before.subject.name} and {after.subject.name} have no task, budget and problem in common; "
            "evaluate both with the same --on and --budgets"
        )
    rows = [_change([one], task=one.task, budget=one.point.label) for one in shared]
    by_task: dict[str, dict[tuple[bool, int], Shared]] = {}
    for one in shared:
        by_task.setdefault(one.task, {})[one.point.key] = one
    if len(by_task) > 1:
        rows += [
            _change(parts, task="mean", budget=f"{budget} forced" if forced else budget)
            for budget, forced, parts in across(list(by_task.values()))
        ]
    return rows


def by_difficulty(results: Sequence[Result]) -> list[Bucket]:
    """At the largest budget: problems by how often all models together solve them.

    Models share the buckets, and none decides alone where a problem falls: sorting by one model's answers
    would favour the others on whatever it happened to fail (regression to the mean).
    """
    return [
        bucket
        for one in _largest(_all_shared(results))
        for bucket in _buckets(one, [_difficulty(one, p) for p in range(len(one.levels_P))], DIFFICULTIES)
    ]


def by_level(results: Sequence[Result]) -> list[Bucket]:
    """The same by what the data sets state themselves; nothing where they state nothing."""
    return [
        bucket
        for one in _largest(_all_shared(results))
        if any(one.levels_P)
        for bucket in _buckets(one, one.levels_P, sorted(set(one.levels_P)))
    ]


def unlike(results: Sequence[Result]) -> list[str]:
    """What else than the model differs from the first result, so that numbers may differ by it."""
    before, *others = results
    return [line for after in others for line in _unlike(before, after)]


def _unlike(before: Result, after: Result) -> Iterator[str]:
    names = (before.subject.name, after.subject.name)
    if before.recipe != after.recipe:
        yield _differs("recipe", names, (before.recipe, after.recipe))
    tasks = [{task.name: task for task in one.tasks} for one in (before, after)]
    for name, mine, theirs in zip(names, tasks, reversed(tasks), strict=True):
        if alone := mine.keys() - theirs.keys():
            yield f"{name} alone has {', '.join(sorted(alone))}"
    for name, task in tasks[0].items():
        if name in tasks[1]:
            yield from _unlike_tasks(names, task, tasks[1][name])


def _unlike_tasks(names: tuple[str, str], one: TaskResult, other: TaskResult) -> Iterator[str]:
    for what, values in (
        ("temperature", (one.temperature, other.temperature)),
        ("top_p", (one.top_p, other.top_p)),
        ("samples", (one.samples, other.samples)),
    ):
        if values[0] != values[1]:
            yield _differs(f"{what} of {one.name}", names, values)
    shared = len(set(one.problem_ids) & set(other.problem_ids))
    asked = len(one.problem_ids), len(other.problem_ids)
    if asked != (shared, shared):
        told = _differs(f"problems of {one.name}", names, asked)
        yield f"{told}; the {shared} whose prompts are the same are compared"


def _differs(what: str, names: tuple[str, str], values: tuple[object, object]) -> str:
    return f"{what}: {values[0]} in {names[0]}, {values[1]} in {names[1]}"


def _all_shared(results: Sequence[Result]) -> list[Shared]:
    found = [_shared(task, point, results) for task in results[0].tasks for point in task.points]
    return [one for one in found if one and one.levels_P]


def _shared(task: TaskResult, point: Point, results: Sequence[Result]) -> Shared | None:
    """None when a result lacks the task or the budget."""
    twins = [_find(result, task.name, point) for result in results]
    pairs = [twin for twin in twins if twin]
    if len(pairs) < len(results):
        return None
    places_R = [
        {name: place for place, name in enumerate(other.problem_ids) if at.judged_P[place]}
        for other, at in pairs
    ]
    common = [name for name in task.problem_ids if all(name in places for places in places_R)]
    rows = [(at, [places[name] for name in common]) for (_, at), places in zip(pairs, places_R, strict=True)]
    return Shared(
        task=task.name,
        point=point,
        levels_P=[task.levels[places_R[0][name]] for name in common],
        rates_R_P=[
            [Fraction(at.correct_P[place], at.judged_P[place]) for place in chosen] for at, chosen in rows
        ],
        tokens_R_P=[[at.tokens_P[place] for place in chosen] for at, chosen in rows],
    )


def _find(result: Result, name: str, point: Point) -> tuple[TaskResult, Point] | None:
    for task in result.tasks:
        for one in task.points:
            if (task.name, one.key) == (name, point.key):
                return task, one
    return None


def _change(parts: Sequence[Shared], *, task: str, budget: str) -> Change:
    solved = [pairs for one in parts if (pairs := _tokens_solved(one))[0]]
    return Change(
        task=task,
        budget=budget,
        accuracy=paired_difference([_as_floats(one.rates_R_P) for one in parts]),
        tokens_ratio=ratio_interval([(one.tokens_R_P[0], one.tokens_R_P[1]) for one in parts]),
        tokens_ratio_solved=ratio_interval(solved) if solved else None,
    )


def _tokens_solved(one: Shared) -> Pairs:
    """Of the problems that both always solve."""
    places = [p for p, rates in enumerate(zip(*one.rates_R_P, strict=True)) if min(rates) == 1]
    before_P, after_P = ([tokens_P[p] for p in places] for tokens_P in one.tokens_R_P)
    return before_P, after_P


def _as_floats(rates_R_P: Sequence[Sequence[Fraction]]) -> Pairs:
    before_P, after_P = ([float(rate) for rate in rates_P] for rates_P in rates_R_P)
    return before_P, after_P


def _largest(shared: Sequence[Shared]) -> list[Shared]:
    """Of each task the largest budget without forced answers."""
    plain = [one for one in shared if not one.point.forced]
    largest = {one.task: max(two.point.budget for two in plain if two.task == one.task) for one in plain}
    return [one for one in plain if one.point.budget == largest[one.task]]


def _difficulty(one: Shared, problem: int) -> str:
    rates = [rates_P[problem] for rates_P in one.rates_R_P]
    failed = 1 - sum(rates) / len(rates)
    return DIFFICULTIES[sum(failed > edge for edge in _EDGES) + (failed == 1)]


def _buckets(one: Shared, names_P: Sequence[str], order: Sequence[str]) -> list[Bucket]:
    def mean(values_P: Sequence[float | Fraction], name: str) -> float:
        return fmean(value for value, other in zip(values_P, names_P, strict=True) if other == name)

    return [
        Bucket(
            task=one.task,
            name=name,
            num_problems=sum(other == name for other in names_P),
            accuracy_R=[mean(rates_P, name) for rates_P in one.rates_R_P],
            tokens_R=[mean(tokens_P, name) for tokens_P in one.tokens_R_P],
        )
        for name in order
        if name in names_P
    ]
