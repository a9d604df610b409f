"""A result as a table for the terminal."""

from rich.table import Table

from apriel_mcore.evaluation.estimates import Interval
from apriel_mcore.evaluation.result import Point, Result, TaskResult, means
from apriel_mcore.views.terminal import add_columns

_COLUMNS = (
    "task",
    "budget",
    "accuracy",
    "95%",
    "pass@k",
    "constant",
    "tokens",
    "cut",
    "problems",
    "judge broke",
)


def of(result: Result) -> Table:
    """A row for each task and budget; then the means over tasks, which weigh the same."""
    table = Table(title=f"{result.subject.name} ({result.subject.kind}, {result.subject.digest[:12]})")
    add_columns(table, *_COLUMNS)
    for task in result.tasks:
        for point in task.points:
            table.add_row(*_row(task, point))
    if len(result.tasks) > 1 and (rows := means(result.tasks)):
        table.add_section()
        for mean in rows:
            budget = f"{mean.budget} forced" if mean.forced else mean.budget
            table.add_row(
                "mean", budget, *_share(mean.accuracy), "", "", f"{mean.tokens.value:.1f}", "", "", ""
            )
    return table


def _row(task: TaskResult, point: Point) -> tuple[str, ...]:
    k = max(point.pass_at)
    problems = f"{sum(n > 0 for n in point.judged_P)} x {task.samples}"
    if left := sum(task.left_out.values()):
        problems += f" (-{left})"
    return (
        task.name,
        point.label,
        *_share(point.accuracy),
        f"{point.pass_at[k]:.3f} @{k}" if k > 1 else "",
        f"{task.constant:.3f}" if task.constant is not None else "",
        f"{point.tokens.value:.1f}",
        f"{point.cut_share:.2f}",
        problems,
        str(point.judge_broke),
    )


def _share(interval: Interval) -> tuple[str, str]:
    return f"{interval.value:.3f}", f"{interval.low:.3f}-{interval.high:.3f}"
