"""Answers without content that the published checkers accept and ours refuse."""

from collections.abc import Callable
from typing import Any

from apriel_mcore.verify.instruction.judge import verify

# kind, arguments, answer
CASES: list[tuple[str, dict[str, Any], str]] = [
    ("language:response_language", {"language": "ko"}, "1 2 3 4"),
    ("punctuation:no_comma", {}, "..."),
    ("keywords:forbidden_words", {"forbidden_words": ["sun"]}, "!"),
    ("length_constraints:number_words", {"num_words": 10, "relation": "less than"}, "."),
    ("length_constraints:number_sentences", {"num_sentences": 3, "relation": "at least"}, "? ? ?"),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 3}, ".***.***."),
    ("detectable_content:number_placeholders", {"num_placeholders": 3}, "Hello [][][]"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Hello. P.S."),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "A chip. S. Smith made it."),
    ("detectable_format:json_format", {}, '"a text"'),
    ("detectable_format:json_format", {}, "3"),
    ("detectable_format:multiple_sections", {"section_spliter": "Day", "num_sections": 2}, "Day 1 Day 2"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 3}, "Hello\n-\n-\n---"),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "Hello *.* *.*"),
    ("detectable_format:title", {}, "Hello <<...>>"),
    ("combination:two_responses", {}, ".******!"),
    ("startend:quotation", {}, '"."'),
    ("startend:quotation", {}, '""'),
    ("count:count_unique", {}, "a"),
    ("keywords:no_adjacent_consecutive", {}, "a"),
    ("letters:letter_counting", {"N": 5, "relation": "less than"}, "1"),
    ("count:lowercase_counting", {"N": 5}, "1"),
    ("keywords:palindrome", {}, "aaa"),
]  # fmt: skip


def report(kinds: set[str], original: Callable[[str, dict[str, Any], str], dict[str, Any]]) -> None:
    """Prints each case with both verdicts."""
    for kind, args, answer in CASES:
        if kind in kinds:
            ours = verify({"instructions": [{"kind": kind, "args": args}]}, answer).success
            print(f"| {kind} | `{answer!r}` | {original(kind, args, answer)} | {ours} |")
