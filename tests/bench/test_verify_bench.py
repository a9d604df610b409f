"""The bench of the judges measures right answers, of every domain, and hostile ones that are refused."""

import pytest

from apriel_mcore.bench.verify import HOSTILE, workloads
from apriel_mcore.config.schema import Verify
from apriel_mcore.verify.latex import too_deep
from apriel_mcore.verify.worker import JUDGES


@pytest.mark.parametrize("name", ["math_int", "math_latex", "instruction", "logic", "puzzles"])
def test_every_answer_of_a_workload_verifies(name: str) -> None:
    load = workloads()[name]
    judge = JUDGES[load.verifier](Verify())
    for reference, text in load.jobs[:20]:
        assert judge.verify(reference, text).success


def test_all_judges_are_measured() -> None:
    compare_two_words = {"text", "choice"}
    assert {load.verifier for load in workloads().values()} == JUDGES.keys() - compare_two_words


def test_hostile_answers_are_of_two_sorts() -> None:
    nested = [answer for answer in HOSTILE if too_deep(answer)]
    assert nested and len(nested) < len(HOSTILE)
