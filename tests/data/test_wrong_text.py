"""Texts that break a constraint do break it, for every kind of IFEval and all bounds."""

from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apriel_mcore.data.wrong_text import breaking
from apriel_mcore.verify.instruction.judge import verify
from apriel_mcore.verify.instruction.table import KINDS
from tests.verify.instruction.test_table import CASES

IFEVAL = list(KINDS)[:25]


@pytest.mark.parametrize(("kind", "args"), [case[:2] for case in CASES if case[0] in IFEVAL])
@settings(deadline=None, max_examples=10)  # the first language takes a second to load
@given(st.integers(0, 10**6))
def test_it_is_broken(kind: str, args: dict[str, Any], seed: int) -> None:
    text = breaking(kind, args, Random(seed))
    assert text and not verify({"instructions": [{"kind": kind, "args": args}]}, text).success


@given(
    st.sampled_from(["number_words:num_words", "number_sentences:num_sentences"]),
    st.integers(2, 40),
    st.sampled_from(["at least", "less than"]),
)
def test_counts_are_missed_by_one(name: str, bound: int, relation: str) -> None:
    kind, argument = name.split(":")
    args = {argument: bound, "relation": relation}
    text = breaking(f"length_constraints:{kind}", args, Random(0))
    met = bound - 1 if relation == "at least" else bound + 1
    for wanted, broken in ((bound, True), (met, False)):
        instruction = {"kind": f"length_constraints:{kind}", "args": {argument: wanted, "relation": relation}}
        assert verify({"instructions": [instruction]}, text).success != broken
