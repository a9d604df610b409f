"""A run's newest numbers in Prometheus' text format, version 0.0.4.

Names are those of the step event under `apriel_`; what ends in a domain's name there has it as a label.
Source: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

import math
import re
from collections.abc import Iterable

import msgspec

from apriel_mcore.obs.watch import read_pulses
from apriel_mcore.views.runview import RunView

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_OF_SERVER = re.compile(r"feed\.pool\.(?P<name>.+)\.(?P<field>\w+)")
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """One number under a name and labels."""

    name: str
    labels: dict[str, str]
    value: float
    kind: str = "gauge"


def samples(run: RunView) -> list[Metric]:
    """What is known of a run now."""
    own = {"run": run.name}
    metrics = [
        Metric(name="apriel_steps_total", labels=own, value=run.steps.last, kind="counter"),
        Metric(name="apriel_alarms_total", labels=own, value=run.counts["alarm"], kind="counter"),
        Metric(name="apriel_rollouts_trained_total", labels=own, value=len(run.shelf), kind="counter"),
        Metric(name="apriel_last_event_timestamp_seconds", labels=own, value=run.heard),
        Metric(name="apriel_running", labels=own, value=float(not run.outcome and run.heard > 0)),
    ]
    domains = set(run.domains())
    for key, value in run.steps.latest().items():
        if key in ("time", "step"):
            continue
        name, labels = _split(key, domains)
        metrics.append(Metric(name=f"apriel_{_word(name)}", labels=own | labels, value=value))
    for key, value in run.receipts.latest().items():
        if key != "time":
            metrics.append(Metric(name=f"apriel_publish_{_word(key)}", labels=own, value=value))
    for pulse in read_pulses(run.run_dir.pulse):
        labels = own | {"rank": str(pulse.rank), "host": pulse.host}
        metrics.append(Metric(name="apriel_rank_pulse_timestamp_seconds", labels=labels, value=pulse.time))
    return metrics


def _split(key: str, domains: set[str]) -> tuple[str, dict[str, str]]:
    """The name of an event's field, and the domain or the server that it speaks of as a label."""
    stem, _, last = key.rpartition(".")
    if last in domains:
        return stem, {"domain": last}
    if server := _OF_SERVER.fullmatch(key):
        return f"feed.server.{server['field']}", {"server": server["name"]}
    return key, {}


def exposition(metrics: Iterable[Metric]) -> str:
    """The text of a scrape: the samples of a name stand together, below its type."""
    by_name: dict[str, list[Metric]] = {}
    for metric in metrics:
        by_name.setdefault(metric.name, []).append(metric)
    lines: list[str] = []
    for name, group in sorted(by_name.items()):
        lines.append(f"# TYPE {name} {group[0].kind}")
        lines += [f"{name}{{{_labels(metric.labels)}}} {_number(metric.value)}" for metric in group]
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    return repr(value) if math.isfinite(value) else f"{value:+}".replace("inf", "Inf")


def _labels(labels: dict[str, str]) -> str:
    return ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in labels.items())


def _word(key: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_]", "_", key)
