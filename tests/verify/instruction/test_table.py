"""Each constraint on a passing and a failing answer, and nothing passes by being empty."""

import time
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apriel_mcore.errors import InputError
from apriel_mcore.verify.instruction.judge import MAX_CHARS, self_check, verify, warm_up
from apriel_mcore.verify.instruction.table import KINDS, bind

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
    ("change_case:english_capital", {}, "THE CAT SLEEPS ON 1 TABLE.", "THE CAT SLEEPS on THE TABLE."),
    ("change_case:english_lowercase", {}, "the cat sleeps on 1 table.", "The cat sleeps on the table."),
    (
        "change_case:english_lowercase",
        {},
        "the na\u00efve cat sleeps in the cafe.",
        "\u043f\u0440\u0438\u0432\u0435\u0442",
    ),
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
    ("language:response_language", {"language": "fr"}, "Le chat dort sur la table.", "The cat is asleep."),
    ("copy:copy", {"prompt_to_repeat": "Say hi to me"}, " say hi TO me", "Say hi to me. Hi"),
    ("copy:copying_simple", {"prompt_to_repeat": "Say hi"}, "Say hi", "Hi"),
    ("copy:copying_multiple", {"prompt_to_repeat": "Say", "N": 2}, "say\n******\nSay", "say"),
    (
        "copy:repeat_phrase",
        {"phrase": "Time flies when having fun", "small_n": 2},
        "Time runs when having fun and Time flies while having fun",
        "Time flies when having fun and Time flies when having fun",
    ),
    (
        "count:count_increment_word",
        {"keyword1": "sun", "keyword2": "sea"},
        "Sun, sea, sea",
        "sun, sun, sea, sea",
    ),
    ("count:count_unique", {}, "One, two, three.", "One, two, one."),
    (
        "count:counting_composition",
        {"n_sent": 2, "n_words": 2},
        "A b. C d.\n* * *\nE f. G h!\n***\nDon't go. We won't!",
        "A b. C d. *** E f. G h! *** I j.",
    ),
    ("count:lowercase_counting", {"N": 2}, "Only two words Here", "only three words"),
    ("detectable_format:bigram_wrapping", {}, "<<I am>> <<at home,>> <<now>>", "<<I am>> at home"),
    ("detectable_format:bigram_wrapping", {}, "<<I am>> now", "<<I am at>> <<home now>>"),
    ("detectable_format:sentence_hyphens", {}, "A well-known fact.-Is it?-Yes!", "One fact. -Is it?"),
    ("detectable_format:sentence_hyphens", {}, "One.-Two.", "Only one sentence."),
    ("detectable_format:square_brackets", {}, "[every] [word,]", "[two words]"),
    ("detectable_format:square_brackets", {}, "[word]", "[word] []"),
    ("first_word:first_word_answer", {"first_word": "so"}, "So, it began", "It is so"),
    ("first_word:first_word_sent", {"first_word": ["so"]}, "So it is. So, what?", "So it is. What?"),
    ("keywords:exclude_word_harder", {"keyword": "sun"}, "A sunny day", "The Sun."),
    (
        "keywords:keyword_specific_position",
        {"keyword": "sun", "n": 2, "m": 4},
        "No. It is, well, Sun. Or",
        "No. Sun it is.",
    ),
    ("keywords:no_adjacent_consecutive", {}, "banana apple cherry", "an (apple) banana"),
    ("keywords:palindrome", {}, "The Level, please", "I saw a cat"),
    ("keywords:start_end", {}, '"Now it is now', "Now it is now."),
    ("keywords:start_end", {}, "Now now", "Now"),
    (
        "keywords:word_count_different_numbers",
        {"keyword": "sun", "frequency": 2, "relation": "less than"},
        "Sun and sun",
        "One sun",
    ),
    ("keywords:word_count_different_numbers", {"keyword": "sun", "frequency": 1}, "One sun", "Sun and sun"),
    ("keywords:word_once", {"keyword": "sun"}, "The Sun", "sun and sun"),
    (
        "last_word:last_word_answer",
        {"last_word": "well-being"},
        'For your "well-being".',
        "Well-being, always.",
    ),
    ("last_word:last_word_sent", {"last_word": "so"}, "Is it so? Say so.", "Is it so? It is."),
    ("letters:letter_counting", {"N": 3, "relation": "less than"}, "a1 b2", "abc"),
    (
        "letters:letter_counting2",
        {"letter": "B", "let_frequency": 1, "let_relation": "at least"},
        "a bee",
        "a sea",
    ),
    (
        "new:copy_span_idx",
        {"prompt_to_repeat": "Copy the word", "n_start": 5, "n_end": 8},
        "the",
        "Copy the",
    ),
    ("new:copy_span_idx", {"prompt_to_repeat": "Copy the word", "n_start": 0, "n_end": 3}, "copy", "co"),
    ("paragraphs:paragraphs", {}, "one\n***\ntwo", "one\n\ntwo"),
    ("paragraphs:paragraphs2", {}, "one\n\ntwo", "one\ntwo"),
    ("punctuation:punctuation_dot", {}, "no dots!", "a dot."),
    ("punctuation:punctuation_exclamation", {}, "none.", "one!"),
    # Nothing in it: published checkers accept the second of each.
    ("detectable_content:number_placeholders", {"num_placeholders": 1}, "Hello [name]", "Hello []"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye. P.S. More", "Bye. P.S."),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "P.\ns. More", "A chip. S. Smith"),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Day", "num_sections": 2},
        "Day 1\na\nDay 2\nb",
        "Day 1 Day 2 b",
    ),
    ("detectable_format:number_bullet_lists", {"num_bullets": 1}, "A list\n---\n- a", "A list\n-"),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 1}, "*a*", "a *...*"),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a *** b", "a *** ."),
    ("combination:two_responses", {}, "yes ****** no", "yes ****** !"),
    ("count:count_unique", {}, "A word", "word"),
    ("keywords:no_adjacent_consecutive", {}, "a word", "word"),
    ("letters:letter_counting", {"N": 5, "relation": "less than"}, "1 a", "1"),
    ("count:lowercase_counting", {"N": 5}, "NOT 1", "1"),
    ("keywords:palindrome", {}, "a madam", "aaa"),
    ("copy:repeat_phrase", {"phrase": "do it now", "small_n": 2}, "do that now do this now", "do  now do it"),
    ("detectable_format:json_format", {}, "```JSON\n[1]\n```", "```[1]\n``"),
]


@pytest.mark.parametrize(("kind", "args", "kept", "broken"), CASES)
def test_each_constraint(kind: str, args: dict[str, Any], kept: str, broken: str) -> None:
    reference = {"instructions": [{"kind": kind, "args": args}]}
    assert verify(reference, kept).status == "correct"
    assert verify(reference, broken).status == "wrong"
    self_check(reference)


def test_every_constraint_has_a_case() -> None:
    assert {case[0] for case in CASES} == KINDS.keys()
    assert len(KINDS) == 54


@given(st.text(alphabet=" \n.,!?*\"'-[]{}<>#", max_size=20))
def test_text_without_a_word_keeps_nothing(text: str) -> None:
    for kind, args, _, _ in CASES:
        assert verify({"instructions": [{"kind": kind, "args": args}]}, text).status == "no_answer"


@pytest.mark.parametrize(
    "text",
    [
        *("<<" * 20_000 + "a", "[a " * 15_000, "*" * 40_000, "a. " * 15_000, "\n" * 40_000),
        *("!" * 40_000 + "x", "a" + "-" * 40_000 + "b", "```x" + " " * 40_000 + "x", "P.S." * 10_000),
        *("one " * 10_000, "Do " * 10_000, "do " * 10_000, "Once upon " * 4_000),
    ],
    ids=lambda text: f"{text[:4]!r}",
)
def test_no_text_takes_long(text: str) -> None:
    warm_up()
    for kind, args, _, _ in CASES:
        start = time.process_time()
        bind(kind, args)(text)
        assert time.process_time() - start < 0.5, kind


def test_an_answer_has_limits_of_length_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    reference = {"instructions": [{"kind": "punctuation:no_comma", "args": {}}]}
    assert verify(reference, "a" * MAX_CHARS).success
    assert verify(reference, "a" * (MAX_CHARS + 1)).status == "unparsable"

    def busy(answer: str) -> bool:
        return all(answer for _ in count())

    monkeypatch.setitem(KINDS, "punctuation:no_comma", KINDS["punctuation:no_comma"]._replace(check=busy))
    assert verify(reference, "a word").detail == "took more than 1 s of CPU"


@given(st.text(max_size=60))
def test_no_text_breaks_a_constraint(text: str) -> None:
    for kind, args, _, _ in CASES:
        assert bind(kind, args)(text) in (True, False)


@pytest.mark.parametrize(
    ("kind", "args", "message"),
    [
        ("taste:sweet", {}, "unknown constraint 'taste:sweet'"),
        ("language:response_language", {"language": "xx"}, "language"),
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
