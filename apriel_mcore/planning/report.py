"""What is the plan? As lines for a terminal, and as a page of charts."""

from collections.abc import Callable, Mapping, Sequence
from html import escape

from apriel_mcore.planning.search import Outcome, Question
from apriel_mcore.views.charts import Series
from apriel_mcore.views.charts import lines as chart

_BLUE = "#3b7dd8"
_HEAD = (
    "trainer",
    "TP x PP x CP x DP",
    "recompute",
    "servers",
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


def lines(
    outcomes: Mapping[int, Outcome], skews: Mapping[float, Outcome], question: Question, *, origin: str
) -> list[str]:
    """Markdown tables, what stands behind them, and what does not."""
    mean = question.mean
    found = [
        f"{question.num_rollouts} rollouts a step, {mean.rollout:.0f} tokens each on average of "
        f"{question.budget}, {mean.generated_tokens / mean.rollout:.0f} asked for them; lengths {origin}",
        "",
        *_table("GPUs", {f"{num_gpus}": one for num_gpus, one in outcomes.items()}),
    ]
    if skews:
        found += ["", *_table("sigma", {f"{sigma:g}": one for sigma, one in skews.items()})]
    return [*found, "", "Not calibrated on devices that ran this program:", *_caveats(question)]


def page(
    outcomes: Mapping[int, Outcome], skews: Mapping[float, Outcome], question: Question, *, origin: str
) -> str:
    """A self-contained page."""
    charts = [
        _chart(outcomes, "step time over GPUs", lambda one: one.step_s),
        _chart(outcomes, "trained tokens/s over GPUs", lambda one: one.trained_tokens_per_s),
        _chart(outcomes, "cost of a step, USD, over GPUs", lambda one: one.usd_per_step),
        _chart(outcomes, "mean lag over GPUs", lambda one: one.lag_mean),
    ]
    if skews:
        charts.append(_chart(skews, "step time over sigma of the lengths", lambda one: one.step_s))
    text = escape("\n".join(lines(outcomes, skews, question, origin=origin)))
    style = "body{font-family:sans-serif;color-scheme:light dark}figure{display:inline-block;width:460px}"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>plan</title>'
        f"<style>{style}svg text{{font-size:11px;fill:currentColor}}.grid{{stroke:#8884}}</style></head>"
        f"<body>{''.join(charts)}<pre>{text}</pre></body></html>"
    )


def _table(first: str, outcomes: Mapping[str, Outcome]) -> Sequence[str]:
    head = (first, *_HEAD)
    rows = [f"| {name} | {' | '.join(_cells(one))} |" for name, one in outcomes.items()]
    return [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *rows]


def _cells(one: Outcome) -> Sequence[str]:
    split, parallel = one.split, one.split.parallel
    return (
        f"{parallel.world_size}",
        f"{parallel.tensor} x {parallel.pipeline} x {parallel.context} x {parallel.data}",
        split.recompute,
        f"{split.num_servers} x {split.server_tensor}, {split.places} places",
        f"{one.max_lag:g}",
        f"{one.step_s:.1f}",
        f"{split.train_s:.1f}",
        f"{split.publish_s:.1f}",
        f"{one.wait_share:.0%}",
        f"{one.lag_mean:.1f} / {one.lag_max}",
        f"{one.rollouts_per_s:.1f}",
        f"{one.trained_tokens_per_s:.0f}",
        f"{one.mfu:.0%}",
        f"{one.usd_per_step:.2f}",
        one.bottleneck,
    )


def _caveats(question: Question) -> list[str]:
    return [f"- {line}" for line in question.profile.uncalibrated]


def _chart(
    outcomes: Mapping[float, Outcome] | Mapping[int, Outcome], title: str, value: Callable[[Outcome], float]
) -> str:
    points = [(float(x), value(one)) for x, one in outcomes.items()]
    return chart([Series(name=title, color=_BLUE, points=points)], title=title)
