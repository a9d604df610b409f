"""What looks costly, and how problems are remembered as slow."""

import pytest

from apriel_mcore.bench.verify import HOSTILE
from apriel_mcore.bench.verify_hostile import hostile_answers
from apriel_mcore.types import Problem
from apriel_mcore.verify.triage import SLOW_S, Triage


def problem(name: str, verifier: str = "math") -> Problem:
    return Problem(
        id=name, domain="d", source="s", messages=(), verifier=verifier, reference={}, split_key=name
    )


# Deep roots are refused before they are parsed, which costs nothing.
COSTLY = [answer for answer in (*HOSTILE, *hostile_answers(24)) if not answer.startswith(r"\sqrt")]


@pytest.mark.parametrize("answer", COSTLY)
def test_hostile_answers_look_costly(answer: str) -> None:
    assert Triage().is_costly(problem("p"), rf"\boxed{{{answer}}}")


@pytest.mark.parametrize(
    "answer", ["12", r"\frac{\sqrt{3}}{2}", "(x-1)^2", r"x^{10}", r"(-\infty,2]", "3.14159", r"\{1,2,3\}"]
)
def test_honest_answers_do_not(answer: str) -> None:
    assert not Triage().is_costly(problem("p"), rf"<think>9^{{9^9}}!</think> So it is \boxed{{{answer}}}")


def test_only_mathematics_is_looked_at() -> None:
    assert not Triage().is_costly(problem("p", "instruction"), "Hello!")


def test_a_problem_is_slow_until_one_of_its_jobs_is_quick() -> None:
    triage = Triage()
    slow, other = problem("slow", "code"), problem("other", "code")
    triage.took(slow, SLOW_S)
    assert (triage.is_costly(slow, ""), triage.is_costly(other, "")) == (True, False)
    triage.took(slow, SLOW_S / 2)
    assert not triage.is_costly(slow, "")
