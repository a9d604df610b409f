"""A number is right when it is the number: no other sign, no digit more or less, no unit."""

from typing import Any

import pytest

from apriel_mcore.verify.logic import verify

SHOWN = {
    "candidates": [592641317.986, 592641326.305],
    "formatted_candidates": ["592,641,317.986", "5.926413263049999e+08"],
    "solution": 592641326.305,
}


def status(task: str, gold: str, answer: str, metadata: dict[str, Any]) -> str:
    entry = {"question": "?", "answer": gold, "metadata": metadata}
    return verify({"task": task, "entry": entry}, answer, solved_at=1.0).status


@pytest.mark.parametrize(
    ("task", "gold", "answer"),
    [
        ("gsm_symbolic", "57", "57"),
        ("gsm_symbolic", "57", "$57.00"),
        ("gsm_symbolic", "1215", "1,215"),
        ("gsm_symbolic", "-57", "-57"),
        ("decimal_arithmetic", "4.86090396050", "4.8609039605"),
        ("number_format", "592641326.305", "592,641,326.305"),
        ("number_format", "592641326.305", "5.926413263049999e+08"),
        ("number_format", "592641326.305", "5.92641326305e8"),
    ],
)
def test_the_number(task: str, gold: str, answer: str) -> None:
    assert status(task, gold, answer, SHOWN if task == "number_format" else {}) == "correct"


@pytest.mark.parametrize(
    ("task", "gold", "answer"),
    [
        ("gsm_symbolic", "57", "-57"),
        ("gsm_symbolic", "-57", "57"),
        ("gsm_symbolic", "57", "57%"),
        ("gsm_symbolic", "57", "5,7"),
        ("gsm_symbolic", "57", "57 or 58"),
        ("gsm_symbolic", "57", "not 57"),
        ("decimal_arithmetic", "25.413", "25.4139"),
        ("decimal_arithmetic", "25.413", "25.41"),
        ("decimal_arithmetic", "25.413", "-25.413"),
        ("decimal_arithmetic", "25.413", "nan"),
        ("number_format", "592641326.305", "592641326.3051"),
        ("number_format", "592641326.305", "592641326.30"),
        ("number_format", "592641326.305", "592,641,317.986"),
        ("number_format", "592641326.305", "\u0665"),
    ],
)
def test_another_number(task: str, gold: str, answer: str) -> None:
    assert status(task, gold, answer, SHOWN if task == "number_format" else {}) == "wrong"
