"""What is the plan? As lines for a terminal, and as a page of charts."""

from collections.abc import Callable, Mapping, Sequence
from html import escape

from apriel_mcore.config.schema import Parallel
from apriel_mcore.planning.hardware import Profile
from apriel_mcore.planning.outcome import Outcome
from apriel_mcore.planning.question import Question
from apriel_mcore.planning.search import Plan
from apriel_mcore.planning.study import Study
from apriel_mcore.views.charts import Series
from apriel_mcore.views.charts import lines as chart

_BLUE = "#3b7dd8"
_HEAD = (
    "trainer",
    "TP x PP x CP x DP",
    "recompute",
    "row",
    "servers",
    "groups in flight",
    "max_lag",
    "step s",
    "train s",
    "publish s",
    "wait",
    "lag mean / max",
    "rollouts/s",
    "tokens/s",
    "MFU",
    "$ a step",
    "bottleneck",
)


def lines(study: Study, question: Question, *, origin: str, weak_from: int) -> list[str]:
    """Markdown tables, what stands behind them, and what does not."""
    chosen = {f"{num_gpus}": one.chosen for num_gpus, one in study.plans.items()}
    found = [*_asked(question, origin=origin, weak_from=weak_from), "", *_table("GPUs", chosen)]
    found += [
        "",
        "Step seconds by `max_lag`, best split found (beyond the bound, without a climb):",
        "",
        *_lags(study.plans),
    ]
    found += ["", "Nothing here prices staleness: what a larger lag does to learning is yours to judge."]
    if study.skews:
        skews = {f"{sigma:g}": one for sigma, one in study.skews.items()}
        found += ["", "The same mean lengths after the cut, other spreads:", "", *_table("sigma", skews)]
    return [*found, *_footing(question.profile, next(iter(chosen.values())))]


def own_lines(outcome: Outcome, question: Question, *, origin: str) -> list[str]:
    """Of the recipe as it is."""
    table = _table("GPUs", {f"{outcome.split.num_gpus}": outcome})
    return [*_asked(question, origin=origin, weak_from=0), "", *table, *_footing(question.profile, outcome)]


def page(study: Study, question: Question, *, origin: str, weak_from: int) -> str:
    """A self-contained page."""
    chosen = {num_gpus: one.chosen for num_gpus, one in study.plans.items()}
    last = list(study.plans)[-1]
    by_lag = {one.max_lag: one for one in study.plans[last].by_lag}
    charts = [
        _chart(chosen, "step time over GPUs", lambda one: one.step_s),
        _chart(chosen, "trained tokens/s over GPUs", lambda one: one.trained_tokens_per_s),
        _chart(chosen, "cost of a step, USD, over GPUs", lambda one: one.usd_per_step),
        _chart(chosen, "mean lag over GPUs", lambda one: one.lag_mean),
        _chart(by_lag, f"step time over max_lag, {last} GPUs", lambda one: one.step_s),
    ]
    if study.skews:
        charts.append(_chart(study.skews, "step time over sigma of the lengths", lambda one: one.step_s))
    text = escape("\n".join(lines(study, question, origin=origin, weak_from=weak_from)))
    style = "body{font-family:sans-serif;color-scheme:light dark}figure{display:inline-block;width:460px}"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>plan</title>'
        f"<style>{style}svg text{{font-size:11px;fill:currentColor}}.grid{{stroke:#8884}}</style></head>"
        f"<body>{''.join(charts)}<pre>{text}</pre></body></html>"
    )


def _asked(question: Question, *, origin: str, weak_from: int) -> list[str]:
    mean = question.mean
    scale = f" at {weak_from} GPUs, in proportion at others" if weak_from else ""
    return [
        f"{question.num_rollouts} rollouts a step{scale}, {mean.rollout:.0f} tokens each on average of "
        f"{question.budget}, {mean.generated_tokens / mean.rollout:.0f} asked for them; lengths {origin}"
    ]


def _table(first: str, outcomes: Mapping[str, Outcome]) -> Sequence[str]:
    head = (first, *_HEAD)
    rows = [f"| {name} | {' | '.join(_cells(one))} |" for name, one in outcomes.items()]
    return [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *rows]


def _cells(one: Outcome) -> Sequence[str]:
    split, trainer = one.split, one.split.trainer
    return (
        f"{split.num_trainers}",
        _ranks(trainer.parallel),
        trainer.recompute,
        f"{trainer.row_tokens}",
        f"{split.num_servers} x {split.server.tensor}, {split.server.places} places",
        f"{split.groups_in_flight}",
        f"{one.max_lag:g}",
        _seconds(one),
        f"{split.train_s:.1f}",
        f"{split.publish.seconds:.1f}",
        f"{one.wait_share:.0%} +- {100 * one.wait_spread:.0f}",
        f"{one.lag_mean:.1f} / {one.lag_max}",
        f"{one.rollouts_per_s:.1f}",
        f"{one.trained_tokens_per_s:.0f}",
        f"{one.mfu:.0%}",
        f"{one.usd_per_step:.2f}",
        one.bottleneck,
    )


def _ranks(parallel: Parallel) -> str:
    chunks = f" ({parallel.virtual_pipeline} chunks)" if parallel.virtual_pipeline > 1 else ""
    return f"{parallel.tensor} x {parallel.pipeline}{chunks} x {parallel.context} x {parallel.data}"


def _seconds(one: Outcome) -> str:
    return f"{one.step_s:.1f} +- {one.step_spread_s:.1f}"


def _lags(plans: Mapping[int, Plan]) -> list[str]:
    """A column for each bound; empty where the search had ended."""
    lags = sorted({one.max_lag for plan in plans.values() for one in plan.by_lag})
    found = [f"| GPUs | {' | '.join(f'{lag:g}' for lag in lags)} |", "|---" * (len(lags) + 1) + "|"]
    for num_gpus, plan in plans.items():
        cells = {one.max_lag: _seconds(one) for one in plan.by_lag}
        found.append(f"| {num_gpus} | {' | '.join(cells.get(lag, '') for lag in lags)} |")
    return found


def _footing(profile: Profile, outcome: Outcome) -> list[str]:
    return [
        "",
        f"Means of {outcome.num_runs} simulated runs, +- the standard deviation of one.",
        "Not calibrated on devices that ran this program:",
        *(f"- {line}" for line in profile.uncalibrated),
    ]


def _chart(
    outcomes: Mapping[float, Outcome] | Mapping[int, Outcome], title: str, value: Callable[[Outcome], float]
) -> str:
    points = [(float(x), value(one)) for x, one in outcomes.items()]
    return chart([Series(name=title, color=_BLUE, points=points)], title=title)
