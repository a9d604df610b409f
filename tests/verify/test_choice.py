r"""Letters: in a box, in prose, in nobody's text; never a guess."""

import pytest

from apriel_mcore.errors import InputError
from apriel_mcore.verify.choice import self_check, verify

GOLD = {"answer": "B", "num_options": 4}


@pytest.mark.parametrize(
    "text",
    [
        r"\boxed{B}",
        r"\boxed{(B)}",
        r"\boxed{\text{B}}",
        r"\boxed{\text{(B)}}",
        r"\boxed{B.}",
        r"It could be \boxed{C}, no: \boxed{B}",
        "The answer is B",
        "**Answer: B**",
        "Answer: (B)",
        "the correct option is: B.",
        "Answer: A? No. The answer is (B).",
        "<think>The answer is C</think>The answer is B.",
        "The answer is B, not C.",
        "The answer is B and the reason is simple.",
        "The answer is B.\n\nIt is the only one that fits.",
        "The answer is (B) A triangle",
        "The answer is B. No other option fits.",
        "**Answer: B** since it fits, or so I think",
        "The answer is B, not (D).",
        "The answer is B rather than C.",
        "The answer is B. A proof follows. C was close.",
        "The answer is B. C is wrong.",
        "While A is tempting, the answer is B.",
        "The answer is B, so I choose it. An X-ray shows it.",
    ],
)
def test_right(text: str) -> None:
    assert verify(GOLD, text).success


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (r"\boxed{C}", "wrong"),
        ("The answer is C", "wrong"),
        ("", "no_answer"),
        ("B", "no_answer"),
        ("All but B are wrong, I think", "no_answer"),
        ("The answer is a sum of two terms", "no_answer"),
        ("The answer is I'm not sure", "no_answer"),
        ("<think>The answer is B", "no_answer"),
        (r"\boxed{B and C}", "unparsable"),
        (r"\boxed{BC}", "unparsable"),
        (r"\boxed{42}", "unparsable"),
        (r"\boxed{F}", "unparsable"),
        (r"\boxed{(B) or (C)}", "unparsable"),
        (r"\boxed{B) not}", "unparsable"),
        (r"\boxed{B. and C.}", "unparsable"),
        (r"\boxed{B. Paris}", "unparsable"),
        ("Answer: B or C", "unparsable"),
        ("Answer: (B) or maybe (C)", "unparsable"),
        ("Answer: B, C", "unparsable"),
        ("Answer: B/C", "unparsable"),
        ("Answer: **B** and **C**", "unparsable"),
        ("The answer is B? No.", "unparsable"),
        ("The answer is B. Or C.", "unparsable"),
        ("The answer is B, wait", "unparsable"),
        ("The answer is A. But option: B is wrong", "unparsable"),
        ("The answer is B,C", "unparsable"),
        ("The answer is B xor C", "unparsable"),
        ("neither: answer is B nor C", "unparsable"),
        ("The answer is B, rather C", "unparsable"),
        ("The answer is B; alternatively C", "unparsable"),
        ("The answer is B but also C", "unparsable"),
        ("The answer is B, though C is right", "unparsable"),
        ("The answer is B!!! just kidding, it is C", "unparsable"),
        ("The answer is B.\n\nA is just as good", "unparsable"),
        ("The answer is B. (A) fits too", "unparsable"),
        ("The answer is B; it ties with A", "unparsable"),
        ("the answer is A. I considered answer is B", "unparsable"),
        (r"\boxed{C} but the answer is B", "wrong"),
    ],
)
def test_not_right(text: str, status: str) -> None:
    verdict = verify(GOLD, text)
    assert not verdict.success
    assert verdict.status == status


def test_golds() -> None:
    self_check(GOLD)
    for bad in ({"answer": "E", "num_options": 4}, {"answer": "b", "num_options": 4}, {"answer": "A"}):
        with pytest.raises(InputError, match="reference"):
            self_check(bad)
