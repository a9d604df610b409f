"""`apriel eval-compare`: the comparison on the terminal, as JSON, as an SVG and as a self-contained page."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from tempfile import TemporaryFile

import msgspec
from rich.table import Table

from apriel_mcore.errors import InputError
from apriel_mcore.evaluation import compare, published, result
from apriel_mcore.evaluation.compare import Bucket, Change
from apriel_mcore.evaluation.estimates import Interval
from apriel_mcore.evaluation.result import Point, Result
from apriel_mcore.views.frontier import COLORS, PUBLISHED, Curve, Mark, svg
from apriel_mcore.views.terminal import show

_PAGE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:860px;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums}"
    "td,th{padding:.2rem .6rem;border-bottom:1px solid #8884;text-align:right}"
    "td:first-child,th:first-child{text-align:left}svg{width:100%;height:auto}.scroll{overflow-x:auto}"
    "@media(prefers-color-scheme:dark){body{background:#16181c;color:#ddd}}"
)


class Outputs(msgspec.Struct, frozen=True, kw_only=True):
    """Files to write, and whether the paper's rows stand beside; an empty path: not written."""

    svg: Path | None
    html: Path | None
    json: Path | None
    with_published: bool


class Sheet(msgspec.Struct, frozen=True):
    """A titled table."""

    title: str
    head: list[str]
    rows: list[list[str]]


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """All that is said of several results; lists of buckets are in the order of `models`."""

    models: list[str]
    changes: dict[str, list[Change]]
    """From the first model to each other one."""
    difficulty: list[Bucket]
    levels: list[Bucket]
    notes: list[str]
    """What else than the model differs, and what was asked for but is not there."""


def run(paths: Sequence[Path], outputs: Outputs) -> Comparison:
    """Compare, print, and write what was asked for.

    InputError when the results have nothing in common, and before any work when a file cannot be written.
    """
    _check(outputs)
    results = [result.read(path) for path in paths]
    names = [one.subject.name for one in results]
    if len(set(names)) < len(names):
        raise InputError(
            f"two results have one name ({', '.join(names)}); give another with `apriel eval --name`"
        )
    comparison = Comparison(
        models=names,
        changes={one.subject.name: compare.changes(results[0], one) for one in results[1:]},
        difficulty=compare.by_difficulty(results),
        levels=compare.by_level(results),
        notes=[*compare.unlike(results), *_unreported(results[0], outputs)],
    )
    sheets = _sheets(comparison)
    for sheet in sheets:
        show(_table(sheet))
    for note in comparison.notes:
        print(f"note: {note}")
    drawn = plots(results, with_published=outputs.with_published)
    if outputs.svg:
        _write(outputs.svg, next(iter(drawn.values())) + "\n")
    if outputs.html:
        _write(outputs.html, _page(comparison, drawn, sheets))
    if outputs.json:
        _write(outputs.json, msgspec.json.format(msgspec.json.encode(comparison), indent=1).decode() + "\n")
    return comparison


def _check(outputs: Outputs) -> None:
    if outputs.with_published and not (outputs.svg or outputs.html):
        raise InputError("--published: the paper's rows stand in plots alone; give --svg or --html with it")
    for flag, path in (("--svg", outputs.svg), ("--html", outputs.html), ("--json", outputs.json)):
        if path is None:
            continue
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                path.open("ab").close()
            else:
                TemporaryFile(dir=path.parent).close()
        except OSError as error:
            raise InputError(
                f"{flag} {path}: cannot be written: {error.strerror}; give a file in a folder of yours"
            ) from None


def _unreported(first: Result, outputs: Outputs) -> list[str]:
    missing = [task.name for task in first.tasks if not published.rows(task.name)]
    if not (outputs.with_published and missing):
        return []
    return [f"--published: the paper reports no {', '.join(missing)}: nothing of it stands beside that"]


def plots(results: Sequence[Result], *, with_published: bool) -> dict[str, str]:
    """Title to SVG: the mean over tasks first, then each task."""
    tasks = [task.name for task in results[0].tasks]
    drawn: dict[str, str] = {}
    if len(tasks) > 1 and all([task.name for task in one.tasks] == tasks for one in results):
        curves = [
            curve for i, one in enumerate(results) for curve in _mean_curves(one, COLORS[i % len(COLORS)])
        ]
        if with_published:
            curves += _published(published.mean_rows(tasks))
        if curves:
            title = f"Mean of {', '.join(tasks)}"
            drawn[title] = svg(curves, title=title)
    for name in tasks:
        curves = [
            curve
            for i, one in enumerate(results)
            for task in one.tasks
            if task.name == name
            for curve in _curves(one.subject.name, task.points, COLORS[i % len(COLORS)])
        ]
        if with_published:
            curves += _published(published.rows(name))
        drawn[name] = svg(curves, title=name)
    return drawn


def _curves(name: str, points: Sequence[Point], color: str) -> list[Curve]:
    marks = [(point.forced, _mark(str(point.budget), point.accuracy, point.tokens)) for point in points]
    return _split(name, color, marks)


def _mean_curves(one: Result, color: str) -> list[Curve]:
    marks = [
        (mean.forced, _mark(mean.budget, mean.accuracy, mean.tokens)) for mean in result.means(one.tasks)
    ]
    return _split(one.subject.name, color, marks)


def _split(name: str, color: str, marks: Sequence[tuple[bool, Mark]]) -> list[Curve]:
    """Plain answers and forced ones (True) are two curves."""
    kinds = {False: name, True: f"{name}, forced"}
    return [
        Curve(
            name=shown,
            color=color,
            dashed=forced,
            marks=[mark for is_forced, mark in marks if is_forced == forced],
        )
        for forced, shown in kinds.items()
        if any(is_forced == forced for is_forced, _ in marks)
    ]


def _mark(budget: str, accuracy: Interval, tokens: Interval) -> Mark:
    return Mark(
        label=budget,
        tokens=tokens.value,
        tokens_low=tokens.low,
        tokens_high=tokens.high,
        accuracy=accuracy.value,
        accuracy_low=accuracy.low,
        accuracy_high=accuracy.high,
    )


def _published(rows: Sequence[published.Row]) -> list[Curve]:
    """One curve of one mark a model, said to be reported by its name."""
    return [
        Curve(
            name=f"{row.model} (published)",
            color=PUBLISHED,
            dashed=True,
            marks=[
                Mark(
                    label=f"{row.model}, {published.BUDGET}",
                    tokens=row.tokens,
                    tokens_low=row.tokens,
                    tokens_high=row.tokens,
                    accuracy=row.accuracy,
                    accuracy_low=row.accuracy,
                    accuracy_high=row.accuracy,
                )
            ],
        )
        for row in rows
    ]


def _sheets(comparison: Comparison) -> list[Sheet]:
    first, *others = comparison.models
    sheets = [_change_sheet(f"{first} -> {name}", comparison.changes[name]) for name in others]
    for title, buckets in (
        ("by difficulty, as all models together solve it", comparison.difficulty),
        ("by level, as the data set states it", comparison.levels),
    ):
        if buckets:
            sheets.append(_bucket_sheet(title, comparison.models, buckets))
    return sheets


def _change_sheet(title: str, changes: Sequence[Change]) -> Sheet:
    head = ["task", "budget", "accuracy", "95%", "p(not better)", "tokens", "tokens, both solve", "problems"]
    rows = [
        [
            change.task,
            change.budget,
            f"{change.accuracy.change.value:+.3f}",
            f"{change.accuracy.change.low:+.3f} to {change.accuracy.change.high:+.3f}",
            f"{change.accuracy.p_not_better:.3f}",
            _ratio(change.tokens_ratio),
            _ratio(change.tokens_ratio_solved),
            str(change.accuracy.num_problems),
        ]
        for change in changes
    ]
    return Sheet(title, head, rows)


def _bucket_sheet(title: str, models: Sequence[str], buckets: Sequence[Bucket]) -> Sheet:
    rows = [
        [
            bucket.task,
            bucket.name,
            str(bucket.num_problems),
            *(
                f"{accuracy:.2f} ({tokens:.1f})"
                for accuracy, tokens in zip(bucket.accuracy_R, bucket.tokens_R, strict=True)
            ),
        ]
        for bucket in buckets
    ]
    return Sheet(f"accuracy (tokens) {title}", ["task", "problems are", "number", *models], rows)


def _ratio(interval: Interval | None) -> str:
    if interval is None:
        return "-"
    return f"x{interval.value:.2f} ({interval.low:.2f}-{interval.high:.2f})"


def _table(sheet: Sheet) -> Table:
    made = Table(title=sheet.title)
    for number, name in enumerate(sheet.head):
        made.add_column(name, justify="right" if number else "left")
    for row in sheet.rows:
        made.add_row(*row)
    return made


def _page(comparison: Comparison, drawn: dict[str, str], sheets: Sequence[Sheet]) -> str:
    title = escape(" / ".join(comparison.models))
    notes = "".join(f"<p>Note: {escape(note)}.</p>" for note in comparison.notes)
    body = notes + "".join(drawn.values()) + "".join(_html(sheet) for sheet in sheets)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_PAGE}</style></head><body><h1>{title}</h1>{body}</body></html>\n"
    )


def _html(sheet: Sheet) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in sheet.head)
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in sheet.rows
    )
    return f'<h2>{escape(sheet.title)}</h2><div class="scroll"><table><tr>{head}</tr>{rows}</table></div>'


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
