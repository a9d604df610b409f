"""GPQA and MMLU-Pro, on rows of their published columns."""

from typing import Any

import pytest

from apriel_mcore.config.schema.layouts import Gpqa, MmluPro
from apriel_mcore.data import layouts
from apriel_mcore.data.item import Unusable
from apriel_mcore.verify import choice

GPQA = {
    "Question": "Which of these is even?",
    "Correct Answer": " two\n",
    "Incorrect Answer 1": "one",
    "Incorrect Answer 2": "three",
    "Incorrect Answer 3": "five",
    "High-level domain": "Arithmetic",
    "Record ID": "rec0",
}
MMLU_PRO = {
    "question_id": 70,
    "question": "What is even?",
    "options": ["one", "two", "three", "N/A", "N/A"],
    "answer": "B",
    "answer_index": 1,
    "cot_content": "",
    "category": "math",
    "src": "ori",
}


def test_the_right_answer_of_gpqa_is_somewhere_and_stays_there() -> None:
    letters = set()
    for number in range(40):
        row = GPQA | {"Question": f"Which of these is even? ({number})"}
        item = layouts.item(Gpqa(), row)
        letter = item.reference["answer"]
        assert f"\n{letter}. two" in item.messages[-1].content
        assert layouts.item(Gpqa(), row) == item
        letters.add(letter)
    assert letters == {"A", "B", "C", "D"}
    assert layouts.item(Gpqa(), GPQA).level == "Arithmetic"


def test_mmlu_pro_keeps_its_letters_and_drops_fillers() -> None:
    item = layouts.item(MmluPro(), MMLU_PRO)
    assert item.messages[-1].content == "What is even?\n\nA. one\nB. two\nC. three"
    assert item.reference == {"answer": "B", "num_options": 3, "gold": r"\boxed{B}"}
    assert item.level == "math"
    assert choice.verify(item.reference, item.reference["gold"]).success


@pytest.mark.parametrize(
    ("layout", "row", "reason"),
    [
        (Gpqa(), GPQA | {"Incorrect Answer 1": "two"}, "no_answer"),
        (Gpqa(), GPQA | {"Question": "  "}, "no_question"),
        (Gpqa(), MMLU_PRO, "other_columns"),
        (MmluPro(), MMLU_PRO | {"answer": "D"}, "no_answer"),
        (MmluPro(), MMLU_PRO | {"answer": "AB"}, "no_answer"),
        (MmluPro(), MMLU_PRO | {"options": ["one"], "answer": "A"}, "no_answer"),
        (MmluPro(), GPQA, "other_columns"),
    ],
)
def test_rows_that_are_none(layout: Any, row: Any, reason: str) -> None:
    with pytest.raises(Unusable) as unusable:
        layouts.item(layout, row)
    assert unusable.value.reason == reason
