"""Every judge's answers can be made to end, in a form that the judge reads."""

from typing import Any

import pytest

from apriel_mcore.evaluation.force import opening_of, room_for
from apriel_mcore.types import Problem
from apriel_mcore.verify import text
from apriel_mcore.verify.worker import JUDGES


def problem(verifier: str, **reference: Any) -> Problem:
    return Problem(
        id="p",
        domain="d",
        source="s",
        messages=(),
        verifier=verifier,
        reference=reference,
        split_key="p",
    )


@pytest.mark.parametrize("verifier", JUDGES)
def test_every_judge_has_an_opening(verifier: str) -> None:
    opening = opening_of(problem(verifier), end_of_thinking="</think>", at_most=100)
    assert opening.text.startswith("\n</think>\n\n")
    assert 0 < opening.max_tokens <= 100
    assert room_for([problem(verifier)], end_of_thinking="</think>", at_most=100) > opening.max_tokens


@pytest.mark.parametrize(("form", "end"), [("boxed", "a dozen}."), ("whole", "a dozen")])
def test_a_forced_text_is_read(form: str, end: str) -> None:
    asked = problem("text", answer="a dozen", format=form)
    words = opening_of(asked, end_of_thinking="</think>", at_most=100).text
    assert text.verify(asked.reference, f"It may be 12 or{words}{end}").success
