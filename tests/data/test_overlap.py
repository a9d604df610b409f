"""Decontamination: a shared run of words is found wherever it stands, and little else is."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apriel_mcore.config.schema import Decontaminate
from apriel_mcore.data.overlap import Benchmarks, open_benchmarks
from apriel_mcore.errors import InputError

WORDS = st.lists(
    st.sampled_from(["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"]),
    min_size=5,
    max_size=30,
)


@given(WORDS, WORDS, WORDS)
def test_a_prompt_is_found_inside_any_text(prompt: list[str], before: list[str], after: list[str]) -> None:
    benchmarks = Benchmarks(ngram=13)
    benchmarks.add("b", " ".join(prompt))
    text = f"{' '.join(before)}\n{', '.join(prompt).upper()}! {' '.join(after)}"
    found = benchmarks.match(text)
    assert found is not None and found.benchmark == "b"


def test_one_word_less_than_the_ngram_is_no_match() -> None:
    benchmarks = Benchmarks(ngram=6)
    benchmarks.add("b", "one two three four five six seven")
    assert benchmarks.match("zero two three four five six eight") is None
    assert benchmarks.match("zero two three four five six seven") == ("b", "two three four five six seven")


def test_short_prompts_must_occur_whole_and_very_short_ones_are_not_searched() -> None:
    benchmarks = Benchmarks(ngram=13)
    benchmarks.add("short", "what is the sum of five numbers")
    benchmarks.add("tiny", "what is it")
    assert benchmarks.match("what is it about: the sum of five numbers") is None
    assert benchmarks.match("Say: What is the sum of five numbers?") is not None


def test_files_are_read_and_a_row_without_prompt_is_named(tmp_path: Path) -> None:
    file = tmp_path / "aime.jsonl"
    file.write_text(json.dumps({"prompt": "find the number of ordered pairs"}) + "\n")
    found = open_benchmarks(Decontaminate(benchmarks={"aime": str(file)}))
    assert found.match("Find the number of ordered pairs (a, b).") is not None
    file.write_text('{"question": "x"}\n')
    with pytest.raises(InputError, match=r"benchmarks\.aime: .*aime\.jsonl:1: .*each row needs a `prompt`"):
        open_benchmarks(Decontaminate(benchmarks={"aime": str(file)}))
    with pytest.raises(InputError, match="no such file"):
        open_benchmarks(Decontaminate(benchmarks={"aime": str(tmp_path / "other.jsonl")}))
