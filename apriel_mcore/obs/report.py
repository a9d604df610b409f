"""Did it work, and why? One self-contained page made from a run's events: no script, no network."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from statistics import fmean

from apriel_mcore.errors import InputError
from apriel_mcore.obs.charts import Series, lines, stacked
from apriel_mcore.obs.runlog import Event, read_events
from apriel_mcore.obs.summary import FIRST_STEPS, LAST_STEPS
from apriel_mcore.rundir import RunDir

_COLORS = ("#3b7dd8", "#d9632b", "#2e9e6b", "#a05cc8", "#c29a1c", "#c8446b", "#4aa5b5", "#7a7a7a")
_TIME_COLORS = {"train": "#3b7dd8", "wait": "#c29a1c", "publish": "#2e9e6b"}


def write(run_dir: Path) -> Path:
    """Write report.html of a run directory; returns its path."""
    paths = RunDir(run_dir)
    events = read_events(paths.events)
    if not events:
        raise InputError(f"{run_dir}: no run, or one that has not begun: it has no events.jsonl with events")
    partial = paths.report.with_suffix(".partial")
    partial.write_text(page(run_dir.name, events), encoding="utf-8")
    partial.replace(paths.report)
    return paths.report


def page(name: str, events: Sequence[Event]) -> str:
    """The whole page as text."""
    steps = [event for event in events if event["event"] == "step"]
    evals = [event for event in events if event["event"] == "eval"]
    domains = [
        key.removeprefix("target_share.")
        for key in (steps[-1] if steps else {})
        if key.startswith("target_share.")
    ]
    colors = {domain: _COLORS[i % len(_COLORS)] for i, domain in enumerate(domains)}
    body = "".join(
        [
            f"<h1>{escape(name)}</h1>",
            _headline(steps, evals),
            _held_out(evals, colors),
            '<section class="charts">',
            *_charts(steps, evals, colors),
            "</section>",
            _samples(evals),
        ]
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(name)}</title><style>{_STYLE}</style></head><body><main>{body}</main></body></html>"
    )


def _headline(steps: Sequence[Event], evals: Sequence[Event]) -> str:
    if not steps:
        return "<p>No optimizer step yet.</p>"
    last = steps[-1]
    first_reward = fmean(step["reward_mean"] for step in steps[:FIRST_STEPS])
    last_reward = fmean(step["reward_mean"] for step in steps[-LAST_STEPS:])
    drift = sum(
        abs(last[key] - last[key.replace("trained_share", "target_share")])
        for key in last
        if key.startswith("trained_share.")
    )
    rewards = f"{first_reward:.2f} &rarr; {last_reward:.2f}"
    tiles = {
        "steps": str(last["step"]),
        f"reward, first {FIRST_STEPS} to last {LAST_STEPS} steps": rewards,
        "mixture: L1 distance to target": f"{drift:.3f}",
        "mean |log-prob gap| trainer to server": f"{fmean(step['logprob_abs_diff'] for step in steps):.4f}",
    }
    if evals:
        accuracies = f"{evals[0]['accuracy_mean']:.2f} &rarr; {evals[-1]['accuracy_mean']:.2f}"
        tiles = {"held-out accuracy, mean of domains": accuracies} | tiles
    return (
        '<section class="tiles">'
        + "".join(f"<div><b>{value}</b><span>{escape(what)}</span></div>" for what, value in tiles.items())
        + "</section>"
    )


def _held_out(evals: Sequence[Event], colors: dict[str, str]) -> str:
    if not evals:
        return ""
    first, last = evals[0], evals[-1]
    rows = "".join(
        f'<tr><td><i style="background:{color}"></i>{escape(domain)}</td>'
        f"<td>{first[f'accuracy.{domain}']:.2f}</td><td>{last[f'accuracy.{domain}']:.2f}</td>"
        f"<td>{first[f'constant.{domain}']:.2f}</td><td>{first[f'tokens_mean.{domain}']:.1f}</td>"
        f"<td>{last[f'tokens_mean.{domain}']:.1f}</td><td>{last[f'count.{domain}']}</td></tr>"
        for domain, color in colors.items()
        if f"accuracy.{domain}" in first and f"accuracy.{domain}" in last
    )
    return (
        f"<h2>Held-out problems, step {first['step']} and step {last['step']}</h2><div class='scroll'><table>"
        "<tr><th>domain</th><th>accuracy before</th><th>after</th><th>best constant answer</th>"
        f"<th>tokens before</th><th>after</th><th>problems</th></tr>{rows}</table></div>"
    )


def _charts(steps: Sequence[Event], evals: Sequence[Event], colors: dict[str, str]) -> list[str]:
    def each(prefix: str, source: Sequence[Event] = steps) -> list[Series]:
        return [
            Series(name=domain, color=color, points=_points(source, f"{prefix}.{domain}"))
            for domain, color in colors.items()
        ]

    targets = [
        Series(
            name=f"{domain} target", color=color, points=_points(steps, f"target_share.{domain}"), dashed=True
        )
        for domain, color in colors.items()
    ]
    lengths = [
        Series(
            name=domain,
            color=color,
            points=_points(steps, f"tokens_mean.{domain}"),
            band=[
                (step["step"], step[f"tokens_p10.{domain}"], step[f"tokens_p90.{domain}"])
                for step in steps
                if f"tokens_p10.{domain}" in step
            ],
        )
        for domain, color in colors.items()
    ]
    seconds = {part: [step[f"time_{part}_s"] for step in steps] for part in _TIME_COLORS}
    return [
        lines(each("reward"), title="Task reward of trained groups"),
        lines(each("accuracy", evals), title="Held-out accuracy"),
        lines(each("trained_share") + targets, title="Share of trained groups", unit="dashed: target"),
        lines(lengths, title="Answer length", unit="tokens: mean, 10th to 90th percentile"),
        lines(each("solve_rate"), title="Solve rate of trained groups"),
        lines([_one(steps, "logprob_abs_diff", 0)], title="Log-prob gap to the server", unit="mean, nats"),
        lines([_one(steps, "lag_mean", 0), _one(steps, "lag_max", 1)], title="Lag", unit="optimizer steps"),
        lines([_one(steps, "entropy", 2)], title="Entropy", unit="nats per token"),
        lines([_one(steps, "grad_norm", 3)], title="Gradient norm before clipping"),
        lines([_one(steps, "length_penalty_mean", 4)], title="Mean length penalty", y_low=None),
        lines([_one(steps, "tokens_per_s", 5)], title="Trained tokens per second"),
        stacked(
            [step["step"] for step in steps],
            seconds,
            _TIME_COLORS,
            title="Where the time goes",
            unit="seconds per step",
        ),
    ]


def _one(steps: Sequence[Event], key: str, color: int) -> Series:
    return Series(name=key, color=_COLORS[color], points=_points(steps, key))


def _points(events: Sequence[Event], key: str) -> list[tuple[float, float]]:
    return [(event["step"], event[key]) for event in events if key in event]


def _samples(evals: Sequence[Event]) -> str:
    if not evals:
        return ""
    after = {(sample["domain"], sample["problem"]): sample for sample in evals[-1]["samples"]}
    cards = ""
    for before in evals[0]["samples"]:
        later = after.get((before["domain"], before["problem"]))
        if later:
            cards += (
                f"<article><h3>{escape(before['domain'])}</h3><pre>{escape(before['prompt'])}</pre>"
                f"{_answer('before', before)}{_answer('after', later)}</article>"
            )
    return f"<h2>The same held-out problems, before and after</h2><section class='cards'>{cards}</section>"


def _answer(when: str, sample: dict[str, object]) -> str:
    mark = "right" if sample["score"] == 1.0 else "wrong"
    return (
        f'<p class="{mark}"><b>{when}</b> {sample["tokens"]} tokens, score {sample["score"]:.2f}</p>'
        f"<pre>{escape(str(sample['answer']))}</pre>"
    )


_STYLE = """
:root{color-scheme:light dark;--ink:#1c2128;--soft:#667;--paper:#fff;--card:#f5f6f8;--rule:#d8dce2}
@media(prefers-color-scheme:dark){:root{--ink:#e6e8eb;--soft:#9aa3ad;--paper:#14171b;--card:#1d2126;--rule:#333a42}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.45 system-ui,sans-serif}
main{max-width:1080px;margin:0 auto;padding:16px}
h1{font-size:1.5rem;margin:.4em 0}h2{font-size:1.1rem;margin:1.6em 0 .5em}h3{margin:0 0 .4em;font-size:.95rem}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(165px,1fr));gap:10px}
.tiles div{background:var(--card);border-radius:8px;padding:10px 12px}
.tiles b{display:block;font-size:1.25rem}.tiles span{color:var(--soft);font-size:.82rem}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,320px),1fr));gap:14px;margin-top:18px}
figure{margin:0;background:var(--card);border-radius:8px;padding:10px}
figcaption{font-weight:600;font-size:.92rem}figcaption small{color:var(--soft);font-weight:400}
svg{width:100%;height:auto;display:block}svg text{fill:var(--soft);font-size:11px}.grid{stroke:var(--rule)}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:4px 12px;margin:4px 0 0;padding:0;font-size:.8rem}
i{display:inline-block;width:10px;height:10px;border-radius:2px;margin-right:5px}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:5px 10px;border-bottom:1px solid var(--rule);text-align:right;font-size:.88rem}
th:first-child,td:first-child{text-align:left}th{color:var(--soft);font-weight:500}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,320px),1fr));gap:12px}
article{background:var(--card);border-radius:8px;padding:12px;min-width:0}
pre{white-space:pre-wrap;overflow-wrap:anywhere;margin:.2em 0 .6em;font-size:.82rem}
article p{margin:.3em 0 0;font-size:.82rem}.right b{color:#2e9e6b}.wrong b{color:#d9632b}
"""
