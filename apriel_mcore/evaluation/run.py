"""`apriel eval`: one model, some tasks, several budgets; killed at any time, it goes on where it was.

subject --model folder--> renderer --> tasks --golds accepted?--> answers + verdicts --> RESULT.json

OUT/NAME.json          the result; other budgets of the same questions are joined to it
OUT/NAME.1.json        an earlier result of that name with other questions, or of another model
OUT/generations/*      every answer, by content: what is on record is not generated again
OUT/models/*           a converted checkpoint, while it is evaluated
OUT/logs/*             of the servers
"""

import asyncio
import time
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import Progress

from apriel_mcore.config.schema import RunConfig
from apriel_mcore.data import gold_check
from apriel_mcore.evaluation import force, table
from apriel_mcore.evaluation import subject as subjects
from apriel_mcore.evaluation import tasks as scopes
from apriel_mcore.evaluation.answers import Answers
from apriel_mcore.evaluation.benchmark import definitions
from apriel_mcore.evaluation.generations import GenerationFile
from apriel_mcore.evaluation.host import Host, host_of
from apriel_mcore.evaluation.measure import Measure
from apriel_mcore.evaluation.result import Point, Result, TaskResult, add
from apriel_mcore.evaluation.subject import Subject
from apriel_mcore.evaluation.tasks import Scope, Task
from apriel_mcore.verify.configured import Judges, judges
from apriel_mcore.views.terminal import show

_STDERR = Console(stderr=True, highlight=False, soft_wrap=True)
_AHEAD = 2
"""Answers in work at once, as a multiple of what the servers take: judging must not idle them."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line asks for."""

    subject: Subject
    scope: Scope
    definitions: tuple[Path, ...] = ()
    end_of_thinking: str = ""
    """Empty: answers are not forced to end."""
    out: Path


def run(config: RunConfig, order: Order) -> Result:
    """Evaluate, write and print. InputError before anything is started, where the order cannot be met."""
    start = time.monotonic()
    known = definitions(order.definitions)
    scopes.check_known(order.scope, known)
    record_path = order.out / "generations" / f"{order.subject.digest[:16]}.jsonl"
    with GenerationFile.opened(record_path) as record:
        host = host_of(config, order.subject, order.out)
        tasks = scopes.load(host.config, order.scope, known, host.renderer)
        _STDERR.print(f"{order.subject.name}: {len(record)} answers on record in {record_path}")
        results, generated = asyncio.run(_Evaluation(order, host, record).run(tasks))
    result = Result(
        subject=order.subject,
        recipe=config.name,
        tasks=results,
        seconds=time.monotonic() - start,
        generated=generated,
        time=time.time(),
    )
    path = order.out / f"{order.subject.name}.json"
    result, moved = add(result, path)
    if moved:
        _STDERR.print(f"{path} held another evaluation, which is now {moved}")
    subjects.forget(order.subject, order.out)
    show(table.of(result))
    print(path)
    return result


class _Evaluation:
    """The part that runs on an event loop."""

    def __init__(self, order: Order, host: Host, record: GenerationFile) -> None:
        self._order = order
        self._host = host
        self._record = record

    async def run(self, tasks: list[Task]) -> tuple[list[TaskResult], int]:
        """A result for each task, and how many answers were generated for them."""
        async with judges(self._host.config) as judge:
            asked = [await self._asked(task, judge) for task in tasks]
            with Progress(console=_STDERR, transient=True, disable=not _STDERR.is_terminal) as bars:
                async with self._host.answers() as answers:
                    measures = [self._measure(task, answers, judge, bars) for task in asked]
                    points = await _together(measures, asyncio.Semaphore(_AHEAD * self._host.places))
        results = [task_result(*pair) for pair in zip(asked, points, strict=True)]
        return results, sum(measure.generated for measure in measures)

    async def _asked(self, task: Task, judge: Judges) -> Task:
        """The task without problems whose gold its judge refuses; InputError where it does not fit."""
        refused = await asyncio.gather(*(gold_check.refusal(problem, judge) for problem in task.problems))
        told = {p.id: text for p, text in zip(task.problems, refused, strict=True) if text}
        asked = scopes.without_refused(task, told)
        forced = force.room_for(
            asked.problems, end_of_thinking=self._order.end_of_thinking, at_most=task.budgets[-1]
        )
        scopes.check_fits(asked, self._host.room, forced_tokens=forced)
        return asked

    def _measure(self, task: Task, answers: Answers, judge: Judges, bars: Progress) -> Measure:
        bar = bars.add_task(task.name, total=len(task.problems) * task.samples)
        return Measure(
            task,
            answers=answers,
            judge=judge,
            record=self._record,
            end_of_thinking=self._order.end_of_thinking,
            done=lambda: bars.advance(bar),
        )


async def _together(measures: list[Measure], places: asyncio.Semaphore) -> list[list[Point]]:
    """All tasks at once: the long answers of one do not leave the servers idle for the next."""
    try:
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(_told(measure, places)) for measure in measures]
    except ExceptionGroup as broken:
        first: Exception = broken
        while isinstance(first, ExceptionGroup):  # a group of tasks whose answers are groups of tasks
            first = first.exceptions[0]
        raise first from broken
    return [task.result() for task in running]


async def _told(measure: Measure, places: asyncio.Semaphore) -> list[Point]:
    """A line when a task is done: all that a log file shows of the way there."""
    points = await measure.run(places)
    _STDERR.print(f"{measure.task.name}: done, {measure.generated} answers generated")
    return points


def task_result(task: Task, points: list[Point]) -> TaskResult:
    """What is written of a task."""
    return TaskResult(
        name=task.name,
        kind=task.kind,
        about=task.about,
        samples=task.samples,
        temperature=task.temperature,
        top_p=task.top_p,
        problem_ids=[problem.id for problem in task.problems],
        levels=[problem.level for problem in task.problems],
        left_out=task.left_out,
        constant=task.constant,
        points=points,
    )
