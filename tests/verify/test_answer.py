"""Extraction survives traces that quote, nest, repeat and break the answer's format."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apriel_mcore.verify.answer import (
    BEGIN,
    END,
    calls_text,
    code_or_bare_text,
    final_answer,
    last_boxed,
    last_code_block,
    tagged_or_bare_text,
)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("  7 ", "7"),
        ("reasoning </think> 7", "7"),
        ("<think> a </think> b </think> 7", "7"),
        ("<think> it must be 7", ""),
        (f"thoughts {BEGIN} 7 {END} bye", "7"),
        (f"thoughts {BEGIN} 7", "7"),
        (f"I write {BEGIN} 3 {END} or {BEGIN} 7 {END}", "7"),
        (f"<think> I will write {BEGIN} 3 {END} </think> 7", "7"),
        (f"<think> 3 {BEGIN} 7 {END}", ""),
        (f"<think> the format: {BEGIN} \\boxed{{42}} {END}. Now compute", ""),
        (f"<think> a </think> <think> it must be {BEGIN} 7", ""),
        (f"{BEGIN}{END}", ""),
        ("Here are my reasoning steps:\n so \\boxed{7}", ""),
        (f"Here are my reasoning steps:\n so 3\n{BEGIN}\n7\n{END}\n<|end|>", "7"),
        (f"Here are my reasoning steps:\n so 3\n{BEGIN}\n7", "7"),
        (f"Here are my reasoning steps:\n {BEGIN} 3 {END} wait\n{BEGIN}\n7\n", "7"),
        (f"{BEGIN} 3 {END} more {END}", "3"),
        (f"7 {END}", "7"),
        ("", ""),
    ],
)
def test_final_answer(text: str, answer: str) -> None:
    assert final_answer(text) == answer


@given(st.text(), st.text(alphabet=st.characters(exclude_characters="<[")))
def test_thoughts_never_reach_the_final_answer(thoughts: str, answer: str) -> None:
    assert final_answer(f"<think>{thoughts}</think>{BEGIN}{answer}{END}") == answer.strip()


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"\boxed{3}", "3"),
        (r"\boxed{3} no, \boxed{4}", "4"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed {3}", "3"),
        (r"\boxed{3} and then \boxed{4", "3"),
        (r"\boxed{x + \boxed{3}}", r"x + \boxed{3}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{a \} b}", r"a \} b"),
        (r"} } \boxed{5}", "5"),
        (r"{ \boxed{5}", "5"),
        (r"\boxed{}", ""),
        (r"a \\boxed{6}", ""),
        (r"\boxed 5", ""),
        ("the answer is 5", ""),
    ],
)
def test_last_boxed(text: str, content: str) -> None:
    assert last_boxed(text) == content


@given(st.text(alphabet="ab{}\\ "), st.text(alphabet="0123456789x+^ "))
def test_the_last_box_wins_whatever_comes_before(noise: str, content: str) -> None:
    assert last_boxed(noise + r" \boxed{" + content + "}") == content.strip()


EXTRACTORS = (final_answer, last_boxed, last_code_block, calls_text, tagged_or_bare_text)


@pytest.mark.parametrize(
    "text",
    [
        "<answer>" * 20_000,
        "```" + " " * 40_000 + "`",
        "~~~" + "\t" * 40_000 + "`",
        "\\boxed{" * 50_000 + "}" * 50_000,
        "\\boxed" + " " * 40_000,
    ],
    ids=lambda text: f"{text[:8]!r}",
)
def test_extraction_of_hostile_texts_takes_no_time(text: str) -> None:
    start = time.process_time()
    for extract in EXTRACTORS:
        extract(text)
    assert time.process_time() - start < 0.5


@pytest.mark.parametrize("piece", [r"\boxed{", "}", "{", "```\n", "<tool_calls>", BEGIN, "<answer>"])
def test_extraction_is_linear(piece: str) -> None:
    text = piece * 100_000
    start = time.process_time()
    for extract in EXTRACTORS:
        extract(text)
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("```python\nx = 1\n```", "x = 1"),
        ("```python\nx = 1\n```\nor\n```py\nx = 2\n```", "x = 2"),
        ("```python\nx = 1\n```\noutput:\n```\n1\n```", "x = 1"),
        ("```\nx = 1\n```\n```text\nx = 2\n```", "x = 2"),
        ("x\n---\n```python\nx = 1\n```\n---", "x = 1"),
        ("```python\nx = 1", "x = 1"),
        ("```python\nx = 1\n```\n```python\n```", "x = 1"),
        ("````python\ns = '''\n```\n'''\n````", "s = '''\n```\n'''"),
        ("~~~python\nx = 1\n~~~", "x = 1"),
        ("1. do\n   ```python\n   x = 1\n   ```", "   x = 1"),
        ("use `x = 1` here", ""),
        ("x = 1", ""),
    ],
)
def test_last_code_block(text: str, source: str) -> None:
    assert last_code_block(text) == source


def test_bare_code_counts_only_where_no_fence_is() -> None:
    assert code_or_bare_text(" def f(x): return x\n") == "def f(x): return x"
    assert code_or_bare_text("say\n```python\nx = 1\n```") == "x = 1"
    assert code_or_bare_text("x = 1\n```python\n```") == ""


@pytest.mark.parametrize(
    ("text", "json"),
    [
        ('<tool_calls>[{"name": "f"}]</tool_calls>', '[{"name": "f"}]'),
        ("<tool_calls>[1]</tool_calls> no <tool_calls>[2]</tool_calls> done", "[2]"),
        ("<tool_calls>[2]", "[2]"),
        ('{"name": "f"}', '{"name": "f"}'),
        ('```json\n[{"name": "f"}]\n```', '[{"name": "f"}]'),
        ('I call {"name": "f"}', ""),
        ("", ""),
    ],
)
def test_calls_text(text: str, json: str) -> None:
    assert calls_text(text) == json


def test_last_answer_tag_wins() -> None:
    assert tagged_or_bare_text("<answer>1</answer> no <answer> 2 </answer>.") == "2"
    assert tagged_or_bare_text(" Yes\n") == "Yes"
    assert tagged_or_bare_text("<answer>1") == "<answer>1"
    assert tagged_or_bare_text("</answer>1") == "</answer>1"
    assert tagged_or_bare_text("<answer>1</answer> </answer>") == "1"
    assert tagged_or_bare_text("<answer>1</answer> <answer>2") == "1"


PIECES = st.sampled_from(
    [
        *("<think>", "</think>", BEGIN, END, BEGIN[:-1], "Here are my reasoning steps:"),
        *("\\boxed{", "\\boxed {", "\\fbox{", "{", "}", "\\{", "\\}", "\\"),
        *("```python\n", "```\n", "\n```", "~~~", "````", "`", "\n", "\r\n", " ", "\u2028"),
        *("<tool_calls>", "</tool_calls>", '[{"name": "f", "arguments": {}}]', "[", "]", '{"a":', '"'),
        *("<answer>", "</answer>", "7", "x", "\x00", "\N{PILE OF POO}"),
    ]
)
TRACES = st.lists(PIECES | st.text(max_size=8), max_size=60).map("".join)


@given(TRACES)
def test_fuzz_what_is_extracted_stands_in_the_text_and_nothing_raises(text: str) -> None:
    """100,000 traces: add --hypothesis-profile=long."""
    answer = final_answer(text)
    assert answer in text and answer == answer.strip()
    assert "</think>" not in answer and BEGIN not in answer and END not in answer
    assert last_boxed(text) in text
    for cut in (calls_text, tagged_or_bare_text, code_or_bare_text, last_code_block):
        found = cut(answer)
        assert len(found) <= len(answer)
        assert all(line in answer for line in found.splitlines())


@given(TRACES)
def test_fuzz_a_well_formed_end_decides_whatever_comes_before(thoughts: str) -> None:
    """100,000 traces: add --hypothesis-profile=long."""
    head = f"{thoughts}</think>\n{BEGIN}\n"
    assert last_boxed(final_answer(head + "\\boxed{\\frac{1}{2}}" + END)) == "\\frac{1}{2}"
    assert last_code_block(final_answer(f"{head}```python\nx = 1\n```\n{END}")) == "x = 1"
    calls = '[{"name": "f", "arguments": {}}]'
    assert calls_text(final_answer(f"{head}<tool_calls>{calls}</tool_calls>{END}")) == calls
