"""The judge: one verdict for all constraints of a prompt, on the final answer alone."""

import pytest

from apriel_mcore.errors import InputError
from apriel_mcore.verify.instruction.judge import self_check, verify


def test_score_is_the_share_of_constraints_kept() -> None:
    reference = {
        "instructions": [
            {"kind": "punctuation:no_comma"},
            {"kind": "startend:quotation", "args": {}},
            {"kind": "length_constraints:number_words", "args": {"num_words": 4, "relation": "less than"}},
        ]
    }
    verdict = verify(reference, "just three words")
    assert verdict.score == pytest.approx(2 / 3)
    assert (verdict.success, verdict.status) == (False, "partial")
    assert verdict.detail == "broken: startend:quotation"
    assert verify(reference, '"just three words"').success


def test_only_the_final_response_is_checked() -> None:
    reference = {"instructions": [{"kind": "punctuation:no_comma", "args": {}}]}
    assert verify(reference, "<think>well, well</think>fine").success
    assert verify(reference, "<think>well").status == "no_answer"


def test_a_problem_without_constraints_is_refused() -> None:
    with pytest.raises(InputError, match="instructions"):
        self_check({"instructions": []})
