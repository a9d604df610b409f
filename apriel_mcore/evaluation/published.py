"""What did others report? The paper's rows, to stand beside what was measured."""

import tomllib
from importlib import resources

import msgspec

BUDGET = 32768
"""Of every row."""


class Row(msgspec.Struct, frozen=True):
    """One model on one benchmark."""

    model: str
    accuracy: float
    """In [0, 1]."""
    tokens: float


def rows(task: str) -> list[Row]:
    """Those of one benchmark; none for a task that the paper does not report."""
    return [Row(model, on[task][0] / 100, on[task][1]) for model, on in _table().items() if task in on]


def mean_rows(tasks: list[str]) -> list[Row]:
    """Each model's mean over benchmarks, where the paper reports all of them."""
    found = [
        Row(
            model,
            sum(on[task][0] for task in tasks) / 100 / len(tasks),
            sum(on[task][1] for task in tasks) / len(tasks),
        )
        for model, on in _table().items()
        if tasks and set(tasks) <= on.keys()
    ]
    return found


def _table() -> dict[str, dict[str, tuple[float, float]]]:
    text = resources.files(__package__).joinpath("published.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), dict[str, dict[str, tuple[float, float]]])
