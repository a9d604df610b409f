"""What does an evaluation leave behind? One JSON file: each problem's counts at each budget, and their sums.

Shape suffixes: _P problems, in the order of `problem_ids`.
"""

from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Literal

import msgspec

from apriel_mcore import __version__
from apriel_mcore.errors import InputError, VerifierError
from apriel_mcore.evaluation.estimates import (
    Interval,
    mean_interval,
    pass_at_k,
    share_interval,
    stratified_interval,
)
from apriel_mcore.evaluation.subject import Subject

FORMAT = 1
OWN = "each its own"
"""For a budget: of a mean over tasks that have different ones."""


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """A task at one output budget, with or without a forced final answer."""

    budget: int
    forced: bool
    judged_P: list[int]
    """Answers with a verdict."""
    correct_P: list[int]
    tokens_P: list[float]
    """Mean length of the judged answers, forced tokens included; 0 where none was judged."""
    cut_P: list[int]
    """Judged answers that the budget ended."""
    judge_broke: int
    """Answers without a verdict: they are in no other number."""
    accuracy: Interval
    """pass@1: mean over problems of the share of right answers."""
    tokens: Interval
    pass_at: dict[int, float]
    """k to unbiased pass@k, over the problems with at least k judged answers."""

    @property
    def key(self) -> tuple[bool, int]:
        """In the order in which one evaluation has them."""
        return self.forced, self.budget

    @property
    def label(self) -> str:
        """Budget and mode."""
        return f"{self.budget} forced" if self.forced else str(self.budget)

    @property
    def cut_share(self) -> float:
        """Of the judged answers."""
        return sum(self.cut_P) / max(1, sum(self.judged_P))

    @property
    def solve_rates_P(self) -> list[float]:
        """Share of right answers; 0 where none was judged."""
        return [c / n if n else 0.0 for c, n in zip(self.correct_P, self.judged_P, strict=True)]


class TaskResult(msgspec.Struct, frozen=True, kw_only=True):
    """One domain or benchmark."""

    name: str
    kind: Literal["domain", "benchmark"]
    about: str
    samples: int
    temperature: float
    top_p: float
    problem_ids: list[str]
    levels: list[str]
    """Difficulty or subject of each problem, as its data set states it."""
    left_out: dict[str, int]
    """Rows that are no problem or whose own gold was refused, by reason."""
    constant: float | None
    """Accuracy of the best constant answer, where there is one."""
    points: list[Point]


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One evaluation."""

    format: int = FORMAT
    subject: Subject
    recipe: str
    """Its name: where domains, judges and stop words are from."""
    tasks: list[TaskResult]
    seconds: float
    generated: int
    """Answers sampled by the call that finished; the others were on record."""
    time: float
    apriel_mcore: str = __version__


class Counts(msgspec.Struct):
    """One problem at one point, while it is being counted."""

    judged: int = 0
    correct: int = 0
    tokens: int = 0
    cut: int = 0
    broke: int = 0


def point_of(budget: int, forced: bool, counts_P: list[Counts]) -> Point:
    """Sums and intervals of a task's counts; VerifierError when not one answer has a verdict."""
    judged = [one for one in counts_P if one.judged]
    if not judged:
        raise VerifierError("no answer has a verdict: every judge broke; see the errors above")
    tokens_P = [one.tokens / one.judged if one.judged else 0.0 for one in counts_P]
    most = max(one.judged for one in judged)
    return Point(
        budget=budget,
        forced=forced,
        judged_P=[one.judged for one in counts_P],
        correct_P=[one.correct for one in counts_P],
        tokens_P=tokens_P,
        cut_P=[one.cut for one in counts_P],
        judge_broke=sum(one.broke for one in counts_P),
        accuracy=share_interval([[one.correct / one.judged for one in judged]]),
        tokens=mean_interval([one.tokens / one.judged for one in judged]),
        pass_at={k: _pass_at(judged, k) for k in _ks(most)},
    )


class Mean(msgspec.Struct, frozen=True, kw_only=True):
    """Over tasks, which weigh the same."""

    budget: str
    """Of all tasks, or OWN."""
    forced: bool
    accuracy: Interval
    tokens: Interval


def means(tasks: Sequence[TaskResult]) -> list[Mean]:
    """A row for each budget and mode that `across` finds."""
    rows = across([{point.key: point for point in task.points} for task in tasks])
    return [
        Mean(
            budget=budget,
            forced=forced,
            accuracy=share_interval([judged(point, point.solve_rates_P) for point in points]),
            tokens=stratified_interval([judged(point, point.tokens_P) for point in points]),
        )
        for budget, forced, points in rows
    ]


def across[T](tasks: Sequence[Mapping[tuple[bool, int], T]]) -> list[tuple[str, bool, list[T]]]:
    """What can be averaged over tasks, each given by Point.key: the budgets that all tasks have; then, where
    exactly one budget of every task is left, those (OWN)."""
    rows: list[tuple[str, bool, list[T]]] = []
    for forced in (False, True):
        of_mode = [{key: one for key, one in task.items() if key[0] == forced} for task in tasks]
        shared = set(of_mode[0]).intersection(*of_mode)
        rows += [(str(key[1]), forced, [task[key] for task in of_mode]) for key in sorted(shared)]
        left = [[one for key, one in task.items() if key not in shared] for task in of_mode]
        if all(len(of_task) == 1 for of_task in left):
            rows.append((OWN, forced, [one for (one,) in left]))
    return rows


def judged(point: Point, values_P: list[float]) -> list[float]:
    """The values of the problems that have a judged answer."""
    return [value for value, n in zip(values_P, point.judged_P, strict=True) if n]


def write(result: Result, path: Path) -> None:
    """Whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")
    partial.replace(path)


def add(result: Result, path: Path) -> tuple[Result, Path | None]:
    """Write a result without losing what the file holds; returns what was written, and where the rest went.

    Points of the same questions to the same model are joined, the later one of a budget taking the earlier
    one's place. Any other result is moved to NAME.1.json, NAME.2.json and so on, the first that is free.
    """
    moved = None
    if path.exists():
        joined = _joined(path, result)
        if joined is None:
            moved = next(free for n in count(1) if not (free := path.with_suffix(f".{n}.json")).exists())
            path.rename(moved)
        result = joined or result
    write(result, path)
    return result, moved


def _joined(path: Path, later: Result) -> Result | None:
    """The result in a file with the points of a later one; None where they do not belong together."""
    try:
        earlier = read(path)
    except InputError:  # of another version
        return None
    if (earlier.subject.digest, earlier.recipe) != (later.subject.digest, later.recipe):
        return None
    if [_questions(task) for task in earlier.tasks] != [_questions(task) for task in later.tasks]:
        return None
    tasks = [
        msgspec.structs.replace(new, points=_union(old.points, new.points))
        for old, new in zip(earlier.tasks, later.tasks, strict=True)
    ]
    return msgspec.structs.replace(later, tasks=tasks)


def _questions(task: TaskResult) -> TaskResult:
    return msgspec.structs.replace(task, points=[])


def _union(earlier: list[Point], later: list[Point]) -> list[Point]:
    points = {point.key: point for point in (*earlier, *later)}
    return [points[key] for key in sorted(points)]


def read(path: Path) -> Result:
    """InputError when the file is not a result of this format."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Result)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give the JSON files that `apriel eval` wrote") from None
    except (msgspec.DecodeError, IsADirectoryError) as error:
        raise InputError(f"{path}: not a result of `apriel eval`: {error}") from None


def _pass_at(judged_P: list[Counts], k: int) -> float:
    values = [pass_at_k(one.judged, one.correct, k) for one in judged_P if one.judged >= k]
    return sum(values) / len(values)


def _ks(samples: int) -> list[int]:
    """1, 2, 4 and so on, and the number of answers itself."""
    powers = [1 << i for i in range(samples.bit_length())]
    return sorted({*powers, samples})
