"""Denials, hedges and talk around an answer are refused before a lax scorer sees them."""

import pytest

from apriel_mcore.verify.logic_forms import is_of_its_form

GOLDS = {
    "fraction_simplification": r"$\frac{39}{281}$",
    "kakurasu": "0 1\n1 0",
    "knights_knaves": "Ann is a knave, Bob is a knight, and Cy is an angel.",
    "polynomial_equations": "-0.04, 0.0",
    "sokoban": "RULLD",
    "survo": "6 4 10\n-2 9 7",
    "tower_of_hanoi": "Move disk 1 from Peg 2 to Peg 1\nMove disk 2 from Peg 2 to Peg 3",
    "letter_jumble": "Under this roof",
    "spell_backward": "olleh",
    "syllogism": "Yes",
}


@pytest.mark.parametrize(("task", "gold"), GOLDS.items())
def test_only_the_answer_itself(task: str, gold: str) -> None:
    assert is_of_its_form(task, gold, gold)
    for text in (f"not {gold}", f"{gold} or so", f"The answer is {gold}.", f"{gold}\n{gold} again"):
        assert not is_of_its_form(task, text, gold)


@pytest.mark.parametrize(
    ("task", "answer"),
    [
        ("fraction_simplification", "39/281"),
        ("knights_knaves", "Bob is a knight and Ann is a knave"),
        ("kakurasu", "1 1 0\n0 0 1"),
        ("polynomial_equations", "0.4"),
        ("syllogism", "no"),
        ("word_sorting", "any other words"),
    ],
)
def test_other_answers_of_the_form_go_to_the_scorer(task: str, answer: str) -> None:
    assert is_of_its_form(task, answer, "Yes")
