"""Sentences end where a reader would end them, without a trained splitter."""

import pytest

from apriel_mcore.verify.instruction.sentences import split_sentences


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
        ("A heading\n\nA paragraph.", 1),
        ("\u4f60\u597d\u3002 \u518d\u89c1\u3002", 2),
        ("all in small letters. another one. a third", 3),
        ("at 6 a.m. we left. it was 40 lbs. in all", 3),
        ("he fell behind 3. luke won. 2. a list", 2),
        ("He went to farm B. He left it.", 2),
        ("Ask candidate C.\n\n- an item", 2),
    ],
)
def test_sentences(text: str, count: int) -> None:
    assert len(split_sentences(text)) == count
