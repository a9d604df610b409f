"""Did it get better? The table that ends a run, from its events alone."""

from statistics import fmean

from rich.table import Table

from apriel_mcore.obs.runlog import Event, read_events
from apriel_mcore.rundir import RunDir
from apriel_mcore.views import terminal

FIRST_STEPS, LAST_STEPS = 3, 5
_COLUMNS = (
    "domain",
    "reward first",
    "last",
    "held-out before",
    "after",
    "best constant",
    "share",
    "target",
)


def show(run_dir: RunDir) -> None:
    """Print reward and held-out accuracy per domain, first and last, and where the report is."""
    events = read_events(run_dir.events)
    terminal.show(table(events))
    print(f"report: {run_dir.report}")


def table(events: list[Event]) -> Table:
    """One row per domain and their mean."""
    steps = [event for event in events if event["event"] == "step"]
    evals = [event for event in events if event["event"] == "eval"]
    names = [key.removeprefix("target_share.") for key in steps[-1] if key.startswith("target_share.")]
    result = Table(title=f"after {steps[-1]['step']} steps")
    terminal.add_columns(result, *_COLUMNS)
    for name in names:
        result.add_row(
            name,
            *(_mean(part, f"reward.{name}") for part in (steps[:FIRST_STEPS], steps[-LAST_STEPS:])),
            *(_mean(evals[i : i + 1], f"accuracy.{name}") for i in (0, len(evals) - 1)),
            _mean(evals[:1], f"constant.{name}"),
            f"{steps[-1][f'trained_share.{name}']:.3f}",
            f"{steps[-1][f'target_share.{name}']:.3f}",
        )
    result.add_section()
    result.add_row(
        "all",
        *(_mean(part, "reward_mean") for part in (steps[:FIRST_STEPS], steps[-LAST_STEPS:])),
        *(_mean(evals[i : i + 1], "accuracy_mean") for i in (0, len(evals) - 1)),
    )
    return result


def _mean(events: list[Event], key: str) -> str:
    values = [event[key] for event in events if key in event]
    return f"{fmean(values):.2f}" if values else "-"
