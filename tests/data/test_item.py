"""Equal shares, whatever the piles."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apriel_mcore.data.item import Shot, conversation, evenly
from apriel_mcore.errors import InputError


@given(
    labels=st.lists(st.sampled_from("abcd"), min_size=1, max_size=60),
    seed=st.integers(0, 9),
    part=st.floats(0, 1),
)
def test_a_label_is_short_only_when_it_has_run_out(labels: list[str], seed: int, part: float) -> None:
    candidates = list(enumerate(labels))
    size = round(part * len(candidates))
    chosen = evenly(candidates, lambda candidate: candidate[1], size, Random(seed))
    assert len(set(chosen)) == size and set(chosen) <= set(candidates)
    there, taken = Counter(labels), Counter(label for _, label in chosen)
    for label, other in ((a, b) for a in there for b in there):
        assert taken[label] >= taken[other] - 1 or taken[label] == there[label]
    assert chosen == evenly(candidates, lambda candidate: candidate[1], size, Random(seed))


def test_too_few_candidates() -> None:
    with pytest.raises(InputError, match="size = 3 exceeds the 2 distinct items"):
        evenly("ab", str, 3, Random(0))


def test_conversation_alternates() -> None:
    turns = conversation([Shot("1 + 1", "2")], "2 + 2")
    assert [(turn.role, turn.content) for turn in turns] == [
        ("user", "1 + 1"),
        ("assistant", "2"),
        ("user", "2 + 2"),
    ]
