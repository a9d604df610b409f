"""What the best constant answer scores, by hand and on the quickstart's own problems."""

from typing import Any

import pytest

from apriel_mcore.config.schema import PuzzleSource, TemplateSource
from apriel_mcore.data import templates
from apriel_mcore.data.constant import best_constant, best_constants
from apriel_mcore.data.item import Item
from apriel_mcore.data.templates import puzzles
from apriel_mcore.types import Problem


def problem(verifier: str, reference: dict[str, Any]) -> Problem:
    return Problem(
        id="", domain="d", source="s", messages=(), verifier=verifier, reference=reference, split_key=""
    )


def asked(items: list[Item]) -> list[Problem]:
    return [problem(item.verifier, item.reference) for item in items]


def test_math_logic_and_calls_count_equal_golds() -> None:
    math = [problem("math", {"answer": answer}) for answer in ("4", "4", "5", "6")]
    logic = [problem("logic", {"entry": {"answer": answer}}) for answer in ("Yes", "No", "Yes")]
    calls = [
        problem("calls", {"answer": [{"f": {"a": [1], "b": [2]}}]}),
        problem("calls", {"answer": [{"g": {}}]}),
    ]
    assert best_constants({"math": math, "logic": logic, "calls": calls, "none": []}) == {
        "math": 0.5,
        "logic": pytest.approx(2 / 3),
        "calls": 0.5,
        "none": 0.0,
    }


def test_code_counts_entry_points_or_outputs() -> None:
    tests = [{"stdin": "1", "expected": "2"}]
    code = [problem("code", {"entry_point": name, "tests": tests}) for name in ("f", "f", "g")]
    assert best_constant(code) == pytest.approx(2 / 3)
    programs = [
        problem("code", {"tests": tests}),
        problem("code", {"tests": [{"stdin": "", "expected": "3"}]}),
    ]
    assert best_constant(programs) == 0.5


def test_instruction_asks_the_real_checker() -> None:
    no_comma = {"instructions": [{"kind": "punctuation:no_comma", "args": {}}], "gold": "No."}
    word = {"instructions": [{"kind": "keywords:existence", "args": {"keywords": ["yes"]}}], "gold": "Yes."}
    assert best_constant([problem("instruction", no_comma), problem("instruction", word)]) == 1.0, "Yes."
    long = {"instructions": [{"kind": "keywords:existence", "args": {"keywords": ["oh"]}}], "gold": "Oh, no."}
    assert best_constant([problem("instruction", no_comma), problem("instruction", long)]) == 0.5


@pytest.mark.parametrize(
    ("name", "shots", "chance"),
    [("sums", 2, 1 / 18), ("functions", 1, 0.0), ("constraints", 1, 0.0), ("calls", 2, 0.0)],
)
def test_no_constant_beats_chance_on_the_quickstart_templates(name: str, shots: int, chance: float) -> None:
    made = templates.items(TemplateSource(name=name, size=400, shots=shots))
    assert best_constant(asked(made)) <= chance + 0.05


def test_no_constant_beats_chance_on_the_quickstart_puzzles() -> None:
    syllogisms = asked(puzzles.items(PuzzleSource(task="syllogism", size=100)))
    options: dict[str, int | float | str | bool] = {"min_words": 2, "max_words": 4}
    letters = asked(puzzles.items(PuzzleSource(task="letter_counting", size=100, options=options)))
    assert best_constant(syllogisms) == 0.5
    assert best_constant(letters) <= 1 / 3 + 0.05
    assert best_constant([*syllogisms, *letters]) <= 0.25 + 0.05
