"""Every family computes in Megatron what it computes in Hugging Face: logits, log-probs, gradients, bytes.

The whole matrix of families and layouts is `apriel bench parity`; here is the part that new code can break
first: every family on one rank, and the families with parameters of their own where those are split.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import msgspec
import pytest
import torch

from apriel_mcore.bench.parity import FAMILIES, LAYOUTS, Cell, Reference, as_markdown, measure, reference_of
from apriel_mcore.bridge.rope import Unscaled

pytestmark = pytest.mark.engine

SPLIT = ["TP2", "PP2", "TP2 x PP2"]
CELLS = [
    *((family, "1 rank") for family in FAMILIES),
    *((family, layout) for family in ("qwen2", "qwen3") for layout in SPLIT),
    ("qwen3", "TP2 + SP"),  # the norms' gradients are then sums over other heads and other tokens
]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Reference]:
    """A family's reference, made once."""
    torch.set_num_threads(1)
    return cache(lambda family: reference_of(family, tmp_path_factory.mktemp(family)))


@pytest.mark.parametrize(("family", "layout"), CELLS)
def test_a_family_equals_hugging_face(
    reference: Callable[[str], Reference], tmp_path: Path, family: str, layout: str
) -> None:
    cell = measure(reference(family), LAYOUTS[layout], folder=tmp_path)
    assert cell.logit < 1e-5
    assert cell.logprob < 1e-5
    assert cell.gradient < 1e-5
    assert cell.round_trip


def test_the_comparison_can_fail(reference: Callable[[str], Reference], tmp_path: Path) -> None:
    """A forgotten scaling of the rotation changes no weight, but every log-prob and gradient."""
    found = reference("llama")
    forgotten = msgspec.structs.replace(found.shape, rope_scaling=Unscaled())
    cell = measure(msgspec.structs.replace(found, shape=forgotten), {}, folder=tmp_path)
    assert cell.logit > 1e-3
    assert cell.logprob > 1e-3
    assert cell.gradient > 1e-3
    assert cell.round_trip


def test_the_table_names_what_differs() -> None:
    cells = {
        ("1 rank", "llama"): Cell(logit=2.4e-7, logprob=4.7e-7, gradient=1.2e-6, round_trip=True),
        ("1 rank", "qwen2"): Cell(logit=0.75, logprob=0.5, gradient=0.25, round_trip=False),
    }
    assert as_markdown(cells, ["1 rank"], ["llama", "qwen2"]).splitlines() == [
        "| logits / log-prob / gradient / bytes | llama | qwen2 |",
        "| --- | --- | --- |",
        "| 1 rank | 2.4e-07 / 4.7e-07 / 1.2e-06 / = | 7.5e-01 / 5.0e-01 / 2.5e-01 / DIFFERS |",
    ]
