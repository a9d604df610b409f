"""A number is right when it is the number: no other sign, no digit more or less, no unit."""

import pytest

from apriel_mcore.verify.logic import verify

SHOWN = {
    "candidates": [592641317.986, 592641326.305],
    "formatted_candidates": ["592,641,317.986", "5.926413263049999e+08"],
    "solution": 592641326.305,
}


def status(answer: str) -> str:
    entry = {"question": "?", "answer": "592641326.305", "metadata": SHOWN}
    return verify({"task": "number_format", "entry": entry}, answer, solved_at=1.0).status


@pytest.mark.parametrize(
    "answer",
    ["592641326.305", "592,641,326.305", "5.926413263049999e+08", "5.92641326305e8", "+592641326.3050"],
)
def test_the_number(answer: str) -> None:
    assert status(answer) == "correct"


@pytest.mark.parametrize(
    "answer",
    [
        "592641326.3051",
        "592641326.30",
        "-592641326.305",
        "592,641,317.986",
        "592,641326.305",
        "592641326.305%",
        "592641326.305 or 1",
        "not 592641326.305",
        "nan",
        "\u0665",
    ],
)
def test_another_number(answer: str) -> None:
    assert status(answer) == "wrong"
