"""Answers in words: spelling is folded, nothing else is forgiven."""

import pytest

from apriel_mcore.errors import InputError
from apriel_mcore.verify import text


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (r"\boxed{The Treaty of Paris}", "correct"),
        ("\\boxed{\\text{the  treaty\nof Paris.}}", "correct"),
        (r"\boxed{treaty of Paris}", "wrong"),
        (r"\boxed{The Treaty of Paris or Rome}", "wrong"),
        ("The Treaty of Paris", "no_answer"),
        (r"<think>\boxed{The Treaty of Paris}</think>none", "no_answer"),
        ("\\boxed{" + "a" * 10_001 + "}", "unparsable"),
    ],
)
def test_words_must_be_the_golds(answer: str, status: str) -> None:
    assert text.verify({"answer": "The Treaty of Paris"}, answer).status == status


def test_the_whole_answer_counts_where_the_reference_says_so() -> None:
    assert text.verify({"answer": "Paris", "format": "whole"}, "</think> PARIS.").success


@pytest.mark.parametrize("answer", ["", " . ", "a" * 10_001])
def test_a_gold_without_words_is_refused(answer: str) -> None:
    with pytest.raises(InputError, match="answer must have"):
        text.self_check({"answer": answer})
