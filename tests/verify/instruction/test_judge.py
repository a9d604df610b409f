"""Each constraint on a passing and a failing answer, and nothing passes by being empty."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apriel_mcore.errors import InputError
from apriel_mcore.verify.instruction.judge import self_check, verify
from apriel_mcore.verify.instruction.registry import KINDS, bind
from apriel_mcore.verify.instruction.sentences import split_sentences

# kind, args, an answer that keeps it, an answer that breaks it
CASES: list[tuple[str, dict[str, Any], str, str]] = [
    ("keywords:existence", {"keywords": ["because", "Sun"]}, "Because the sun shines", "The sun shines"),
    ("keywords:forbidden_words", {"forbidden_words": ["can", "C++"]}, "The candle burns", "You Can try"),
    ("keywords:forbidden_words", {"forbidden_words": ["C++"]}, "We use C", "We use c++."),
    (
        "keywords:frequency",
        {"keyword": "red", "frequency": 2, "relation": "at least"},
        "Red, red.",
        "A red rose",
    ),
    ("keywords:frequency", {"keyword": "a.c", "frequency": 1, "relation": "less than"}, "abc", "an a.c unit"),
    (
        "keywords:letter_frequency",
        {"letter": "e", "let_frequency": 3, "let_relation": "at least"},
        "Eee",
        "see",
    ),
    (
        "keywords:letter_frequency",
        {"letter": "!", "let_frequency": 2, "let_relation": "less than"},
        "a!",
        "a!!",
    ),
    (
        "length_constraints:number_words",
        {"num_words": 3, "relation": "less than"},
        "two words",
        "now three words",
    ),
    (
        "length_constraints:number_words",
        {"num_words": 3, "relation": "at least"},
        "now three words",
        "two words",
    ),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 2, "relation": "at least"},
        "Hi. Bye!",
        "Dr. Who ran.",
    ),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 2, "relation": "less than"},
        "Only one",
        "One. Two.",
    ),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a\n***\nb\n***", "a\n***\n***\nb"),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Then"},
        'First.\n\n"then, more',
        "Then.\n\nFirst",
    ),
    ("change_case:english_capital", {}, "ALL 4 ONE", "ALL 4 one"),
    ("change_case:english_lowercase", {}, "all 4 one", "All 4 one"),
    ("change_case:english_lowercase", {}, "na\u00efve cafe society", "\u043f\u0440\u0438\u0432\u0435\u0442"),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "at least"},
        "NASA and I",
        "Nasa and I",
    ),
    ("punctuation:no_comma", {}, "one two", "one, two"),
    ("startend:end_checker", {"end_phrase": "The end."}, '"Once. the END." ', "The end. Or not"),
    ("startend:quotation", {}, ' "all of it" ', '"a" and b'),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say hi"}, "say HI\nhi", "hi. Say hi"),
    ("combination:two_responses", {}, "one\n******\ntwo", "one ****** one"),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[name] at [place]", "[name] here"),
    (
        "detectable_content:postscript",
        {"postscript_marker": "P.S."},
        "Bye.\np. s. one more",
        "Bye. PS one more",
    ),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "Bye.\nP.P.S. more", "Bye.\nP.S. more"),
    ("detectable_content:postscript", {"postscript_marker": "NB"}, "Bye. nb more", "Bye. more"),
    ("detectable_format:title", {}, "<<A title>> and text", "<< >> and text"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n - b\n**c**", "* a\n* b\n* c"),
    (
        "detectable_format:number_highlighted_sections",
        {"num_highlights": 2},
        "*a* and **b**",
        "*a* and ** **",
    ),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Section", "num_sections": 2},
        "Section 1 a Section 2 b",
        "Section 1 a section b",
    ),
    ("detectable_format:constrained_response", {}, "Well. My answer is no.", "My answer is never."),
    ("detectable_format:json_format", {}, '```json\n{"a": [1]}\n```', '{"a": 1} done'),
    ("detectable_format:json_format", {}, "[1, 2]", '"a string"'),
]


@pytest.mark.parametrize(("kind", "args", "kept", "broken"), CASES)
def test_each_constraint(kind: str, args: dict[str, Any], kept: str, broken: str) -> None:
    reference = {"instructions": [{"kind": kind, "args": args}]}
    assert verify(reference, kept).status == "correct"
    assert verify(reference, broken).status == "wrong"
    self_check(reference)


def test_every_constraint_has_a_case() -> None:
    assert {case[0] for case in CASES} == KINDS.keys()
    assert len(KINDS) == 24


@given(st.text(alphabet=" \n.,!?*\"'-[]{}<>#", max_size=20))
def test_text_without_a_word_keeps_nothing(text: str) -> None:
    for kind, args, _, _ in CASES:
        assert verify({"instructions": [{"kind": kind, "args": args}]}, text).status == "no_answer"


@given(st.text(max_size=60))
def test_no_text_breaks_a_constraint(text: str) -> None:
    for kind, args, _, _ in CASES:
        assert bind(kind, args)(text) in (True, False)


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


@pytest.mark.parametrize(
    ("kind", "args", "message"),
    [
        ("taste:sweet", {}, "unknown constraint 'taste:sweet'"),
        ("language:response_language", {"language": "de"}, "not supported.*language detector"),
        ("punctuation:no_comma", {"commas": 0}, "commas"),
        ("keywords:existence", {}, "keywords"),
        ("keywords:existence", {"keywords": []}, "length"),
        ("keywords:existence", {"keywords": [" "]}, "keywords"),
        (
            "keywords:letter_frequency",
            {"letter": "ab", "let_frequency": 1, "let_relation": "at least"},
            "letter",
        ),
        ("length_constraints:number_words", {"num_words": 0, "relation": "at least"}, "num_words"),
        ("length_constraints:number_words", {"num_words": 5, "relation": "at most"}, "relation"),
        ("detectable_format:number_bullet_lists", {"num_bullets": None}, "num_bullets"),
    ],
)
def test_bad_constraints_are_refused_by_name(kind: str, args: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        self_check({"instructions": [{"kind": kind, "args": args}]})


def test_a_problem_without_constraints_is_refused() -> None:
    with pytest.raises(InputError, match="instructions"):
        self_check({"instructions": []})


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("...", 0),
        ("no end mark", 1),
        ("One. Two! Three? Four", 4),
        ("Wait... what?!", 1),
        ("It costs 3.50 dollars. Really.", 2),
        ("Dr. Smith and Mr. Jones met J. Doe.", 1),
        ("See e.g. this one. And that.", 2),
        ('He said "Hi." Then he left.', 2),
        ("It was I. Nobody else.", 2),
        ("A heading\n\nA paragraph.", 2),
        ("\u4f60\u597d\u3002 \u518d\u89c1\u3002", 2),
    ],
)
def test_sentences(text: str, count: int) -> None:
    assert len(split_sentences(text)) == count
