"""The loss that docs/how-to/add-a-loss.md adds does what the page says of it."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from apriel_mcore.config.schema import Loss
from apriel_mcore.loss import policy
from tests.loss import test_policy
from tests.loss.test_policy import HIGH, LOW, MIXED_ROW, NUM_TOKENS, row_loss

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "add-a-loss.md"


@pytest.fixture
def variant(monkeypatch: pytest.MonkeyPatch) -> Loss:
    """Of the page's kind, listed as the page says."""
    written = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    scope: dict[str, Any] = dict(vars(policy))
    exec(written[0], scope)
    listed: dict[str, Callable[..., Any]] = eval(f"{{{written[1]}}}", scope)
    for kind, function in listed.items():
        monkeypatch.setitem(policy.KINDS, kind, function)
    (kind,) = listed
    return Loss(kind=kind, clip_low=LOW, clip_high=HIGH)  # pyright: ignore[reportArgumentType]


def test_a_token_out_of_bounds_gives_no_gradient(variant: Loss) -> None:
    result, gradient_T = row_loss(MIXED_ROW, variant)
    expected_T: list[float] = []
    for answer in MIXED_ROW:
        for new, old in zip(answer.new_T, answer.old_T, strict=True):
            ratio = math.exp(new - old)
            expected_T.append(-ratio * answer.advantage / NUM_TOKENS if 1 - LOW <= ratio <= 1 + HIGH else 0.0)
    assert gradient_T.tolist() == pytest.approx(expected_T)
    assert result.sums.clipped_tokens.item() == expected_T.count(0.0) > 0


def test_an_empty_row_and_other_packings(variant: Loss) -> None:
    test_policy.test_an_empty_row_is_zero_and_still_runs_backward(variant)
    test_policy.test_a_sample_without_tokens_contributes_nothing(variant)
    test_policy.test_the_order_of_tokens_in_the_row_does_not_matter(variant)
    whole, _ = row_loss(MIXED_ROW, variant)
    parts = [row_loss(part, variant)[0].loss.item() for part in (MIXED_ROW[:2], [], MIXED_ROW[2:])]
    assert sum(parts) == pytest.approx(whole.loss.item())
