"""Three notions of a word."""

import pytest

from apriel_mcore.verify.instruction.tokens import penn_words, spaced_words, words


def test_a_contraction_counts_as_each_notion_counts_it() -> None:
    assert words("don't") == ["don", "t"]
    assert spaced_words('("Don\'t," - she)') == ["don't", "she"]
    assert penn_words("I'm here, DON'T go") == ["I", "'m", "here", "DO", "N'T", "go"]


@pytest.mark.parametrize(
    ("text", "capitals"),
    [
        ("The U.S. and NASA's CEO", 3),
        ("I'll, I've and I'd", 3),
        ("A/B is one, A:B two", 3),
        ("CANNOT is two", 2),
        ("*NASA* (ESA)...WAIT", 3),
        ("I\u2019m", 1),
        ("12 3A", 1),
    ],
)
def test_capitals(text: str, capitals: int) -> None:
    assert sum(map(str.isupper, penn_words(text))) == capitals
