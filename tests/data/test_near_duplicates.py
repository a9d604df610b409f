"""Near duplicates: what the index finds is what comparing every pair finds, and numbers part two problems."""

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apriel_mcore.data.near_duplicates import Asked, near_duplicates
from apriel_mcore.data.ngrams import runs, words_and_marks

TEXTS = st.lists(
    st.lists(st.sampled_from("abcdef+"), max_size=14).map(" ".join) | st.sampled_from(["", "a b c d e f"]),
    max_size=12,
)
"""Few words, so that many texts share many runs."""
THRESHOLDS = st.sampled_from([0.1, 0.25, 1 / 3, 0.5, 0.55, 0.7, 0.8, 0.9, 1.0]) | st.floats(0.05, 1.0)
NGRAMS = st.integers(1, 5)


def share(one: str, other: str, ngram: int) -> float:
    """Of the runs in either text those in both, from the definition."""
    sets = []
    for text in (one, other):
        words = words_and_marks(text)
        sets.append(set(runs(words, min(ngram, len(words)))) - {""})
    union = sets[0] | sets[1]
    return len(sets[0] & sets[1]) / len(union) if union else 0.0


def brute_force(texts: list[str], ngram: int, threshold: float) -> dict[int, tuple[int, float]]:
    """Every text against every kept one before it."""
    found: dict[int, tuple[int, float]] = {}
    for number, text in enumerate(texts):
        for other in range(number):
            alike = share(text, texts[other], ngram)
            if other not in found and alike >= threshold and alike > 0:
                found[number] = (other, alike)
                break
    return found


def found(texts: list[str], ngram: int, threshold: float) -> dict[int, tuple[int, float]]:
    asked = [Asked("", text) for text in texts]
    return {
        n: (near.number, near.share)
        for n, near in near_duplicates(asked, ngram=ngram, threshold=threshold).items()
    }


@settings(max_examples=500)
@given(TEXTS, NGRAMS, THRESHOLDS)
def test_nothing_is_missed_and_nothing_else_is_dropped(
    texts: list[str], ngram: int, threshold: float
) -> None:
    assert found(texts, ngram, threshold) == brute_force(texts, ngram, threshold)


@given(TEXTS, NGRAMS, THRESHOLDS)
def test_the_kept_differ_and_each_dropped_one_repeats_a_kept_one(
    texts: list[str], ngram: int, threshold: float
) -> None:
    dropped = found(texts, ngram, threshold)
    kept = [text for number, text in enumerate(texts) if number not in dropped]
    assert found(kept, ngram, threshold) == {}
    assert all(first not in dropped and first < number for number, (first, _) in dropped.items())


@given(st.lists(st.sampled_from("abcdef+"), max_size=14), st.lists(st.sampled_from("abcdef+"), max_size=14))
def test_two_texts_are_near_whichever_comes_first(one: list[str], other: list[str]) -> None:
    pair = [" ".join(one), " ".join(other)]
    forth, back = found(pair, 2, 0.5), found(pair[::-1], 2, 0.5)
    assert forth == back


@given(TEXTS, st.randoms(use_true_random=False), NGRAMS, THRESHOLDS)
def test_whether_there_are_any_does_not_depend_on_the_order(
    texts: list[str], rng: random.Random, ngram: int, threshold: float
) -> None:
    shuffled = rng.sample(texts, len(texts))
    assert bool(found(texts, ngram, threshold)) == bool(found(shuffled, ngram, threshold))


@pytest.mark.parametrize(
    ("one", "other", "near"),
    [
        ("What is 3 + 4?", "What is  3 + 4 ?", True),
        ("What is 3 + 4?", "What is 3 - 4?", False),
        ("What is 3 + 4?", "What is 3 + 5?", False),
        ("", "", False),
        ("???", "???", True),
    ],
)
def test_short_prompts_must_be_equal_and_signs_count(one: str, other: str, near: bool) -> None:
    assert bool(found([one, other], 8, 0.8)) == near


def test_a_longer_prompt_may_differ_in_a_word() -> None:
    words = [f"w{number}" for number in range(60)]
    other = [*words[:30], "other", *words[31:]]
    assert found([" ".join(words), " ".join(other)], 5, 0.8) == {1: (0, 51 / 61)}


def test_other_functions_or_turns_before_it_make_another_problem() -> None:
    asked = [Asked("book(city)", "Please book it now"), Asked("cancel(city)", "Please book it now")]
    assert near_duplicates(asked, ngram=3, threshold=0.5) == {}
    assert list(near_duplicates([*asked, asked[0]], ngram=3, threshold=0.5)) == [2]


def test_a_chain_of_small_changes_is_not_one_text() -> None:
    """b repeats a, c repeats b and not a: c stays, for b is gone."""
    a, b, c = "a b c d e f g h", "x b c d e f g h", "x y c d e f g h"
    assert list(found([a, b, c], 1, 0.7)) == [1]
    assert list(found([b, a, c], 1, 0.7)) == [1, 2]


def test_thousands_of_prompts_from_one_template_are_compared_in_seconds() -> None:
    """The worst case: half of each text is in all of them."""
    rng = random.Random(0)
    common = " ".join(f"c{number}" for number in range(30))
    texts = [f"{common} {' '.join(str(rng.randrange(10**6)) for _ in range(30))}" for _ in range(4000)]
    start = time.process_time()
    assert found(texts, 3, 0.8) == {}
    assert time.process_time() - start < 10
