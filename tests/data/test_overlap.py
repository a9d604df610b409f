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


def test_short_prompts_must_occur_whole_and_very_short_ones_alone() -> None:
    benchmarks = Benchmarks(ngram=13)
    benchmarks.add("short", "what is the sum of five numbers")
    benchmarks.add("tiny", "what is it")
    assert benchmarks.match("what is it about: the sum of five numbers") is None
    assert benchmarks.match("Say: What is the sum of five numbers?") is not None
    assert benchmarks.match("Say what is it") is None
    assert benchmarks.match(" What  is it ") == ("tiny", "what is it")


def test_marks_part_very_short_prompts() -> None:
    benchmarks = Benchmarks(ngram=13)
    benchmarks.add("b", "What is 12 * 13?")
    assert benchmarks.match("what is 12*13 ?") is not None
    assert benchmarks.match("What is 12 + 13?") is None


CHINESE = (
    "\u5c0f\u660e\u6709\u4e94\u4e2a\u82f9\u679c\uff0c\u4ed6\u53c8\u4e70\u4e86\u4e09\u4e2a\u82f9\u679c\u3002"
)
"""Xiaoming has five apples, and he bought three more."""
THAI = (
    "\u0e2b\u0e19\u0e36\u0e48\u0e07\u0e1a\u0e27\u0e01\u0e2a\u0e2d\u0e07\u0e40\u0e17\u0e48\u0e32\u0e44\u0e23"
)


@pytest.mark.parametrize("prompt", [CHINESE, THAI])
def test_scripts_without_spaces_are_searched_by_character(prompt: str) -> None:
    benchmarks = Benchmarks(ngram=13)
    benchmarks.add("b", prompt)
    for text in (prompt, f"x{prompt}y"):
        found = benchmarks.match(text)
        assert found is not None and len(found.words.split()) == 13
    assert benchmarks.match(prompt[:9]) is None


def test_what_is_searched_is_counted() -> None:
    benchmarks = Benchmarks(ngram=13)
    for prompt in ("find the number of ordered pairs", "what is it", " ", CHINESE):
        benchmarks.add("b", prompt)
    assert benchmarks.searched == {"b": (4, 2, 1)}


@pytest.mark.parametrize("content", ["", "\n", '{"prompt": " "}\n'])
def test_a_benchmark_without_anything_to_search_for_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "b.jsonl").write_text(content)
    with pytest.raises(InputError, match=r"benchmarks\.aime: .*b\.jsonl: [01] prompts, none with words"):
        open_benchmarks(Decontaminate(benchmarks={"aime": str(tmp_path / "b.jsonl")}))


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
