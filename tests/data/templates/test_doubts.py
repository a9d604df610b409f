"""Golds that no two readers would agree on, or that are wrong, are told by short rules."""

from typing import Any

import pytest
import reasoning_gym

from apriel_mcore.data.templates.doubts import doubt


def entry(question: str = "?", answer: str = "1", **facts: Any) -> dict[str, Any]:
    return {"question": question, "answer": answer, "metadata": facts}


def haystack(*said: str) -> dict[str, Any]:
    asked = "Who likes tea? Reply only with a name."
    hay = "".join(f"{one}. " for one in said)
    return entry(f"{hay}\n{asked}") | {"metadata": {"question": asked}}


@pytest.mark.parametrize(
    ("task", "found", "reason"),
    [
        ("chain_sum", entry(answer="1"), ""),
        ("chain_sum", entry(answer=" "), "no_answer"),
        ("letter_counting", entry(target_letter="a", span=["An", "Ox"]), "ambiguous"),
        ("letter_counting", entry(target_letter="a", span=["at", "Ox"]), ""),
        ("simple_equations", entry(equation="0 = 0"), "ambiguous"),
        ("simple_equations", entry(equation="3*x = 0"), ""),
        ("number_filtering", entry(original_numbers=["81", "8.1", "81.00"]), "wrong_gold"),
        ("number_filtering", entry(original_numbers=["81", "8.1", "-81.0"]), ""),
        ("needle_haystack", haystack("Ann likes tea", "Bo likes rye"), ""),
        ("needle_haystack", haystack("Ann likes tea", "Bo likes tea"), "ambiguous"),
    ],
)
def test_a_doubt_has_a_reason(task: str, found: dict[str, Any], reason: str) -> None:
    unusable = doubt(task, found)
    assert (unusable.reason if unusable else "") == reason


@pytest.mark.parametrize(
    "task", ["letter_counting", "needle_haystack", "number_filtering", "simple_equations"]
)
def test_few_generated_entries_are_doubted(task: str) -> None:
    made = reasoning_gym.create_dataset(task, size=100, seed=3)
    assert sum(doubt(task, found) is None for found in made) > 75
