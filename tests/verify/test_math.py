"""The math judge: what the library gets wrong is right here, and hostile input costs a second at most."""

import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apriel_mcore.errors import InputError
from apriel_mcore.verify.latex import brackets, respell, too_deep
from apriel_mcore.verify.math import self_check, verify
from apriel_mcore.verify.numerals import exact_number
from apriel_mcore.verify.units import measure

pytestmark = pytest.mark.usefixtures("math_library")


def status(gold: str, answer: str) -> str:
    return verify({"answer": gold, "format": "boxed"}, rf"It is \boxed{{1}}, no, \boxed{{{answer}}}.").status


WRONG = [
    ("0.333333", "1/3"),
    ("1/3", "0.333333"),
    ("0.1", "0.10000001"),
    (r"\{1,2\}", "(1,2)"),
    (r"5\text{ cm}", r"5\text{ m}"),
    (r"5\text{ cm}^2", r"5\text{ cm}"),
    ("(1,2)", "(2,1)"),
    ("[1,2]", "(1,2)"),
    ("5", "5 or 6"),
    ("5", "5, 6"),
    ("9", "7 apples and 9"),
    ("x^2", "y^2"),
    (r"\text{Monday}", "Tuesday"),
    ("2", r"__import__('os').system('true')"),
    (r"2\pi", "6.283185307"),
    ("1", r"\frac{1}{0}"),
]
RIGHT = [
    ("1000", "1 000"),
    ("1000", r"1\,000"),
    ("1000", "1,000"),
    ("7", "7."),
    ("3", r"\left(3"),
    ("-1", r"e^{i\pi}"),
    (r"e^{i \pi}", "-1"),
    (r"\emptyset", r"\varnothing"),
    (r"(-\infty, 2]", r"x \le 2"),
    (r"[1, 2)", r"\left[1, 2\right)"),
    ("0.5", r"\dfrac12"),
    (r"\frac{3}{4}\text{ hours}", "0.75"),
    (r"5\text{ meters}", r"5\mathrm{m}"),
    (r"\frac{\sqrt 3}{2}", r"\frac12\sqrt{3}"),
    ("(x-1)^2", "x^2 - 2x + 1"),
    (r"\{1,2\}", r"\{2,1\}"),
    (r"\text{Monday}", "Monday"),
    ("12", "\N{MINUS SIGN}(-12)"),
]


@pytest.mark.parametrize(("gold", "answer"), WRONG)
def test_wrong_answers(gold: str, answer: str) -> None:
    assert status(gold, answer) == "wrong"


@pytest.mark.parametrize(("gold", "answer"), RIGHT)
def test_right_answers(gold: str, answer: str) -> None:
    assert status(gold, answer) == "correct"


@given(st.integers(), st.integers())
def test_integers_are_exact(gold: int, answer: int) -> None:
    assert (status(str(gold), str(answer)) == "correct") == (gold == answer)


@given(st.fractions(max_denominator=1000))
def test_fractions_in_every_spelling(value: Fraction) -> None:
    top, bottom = value.numerator, value.denominator
    sign = "-" if top < 0 else ""
    assert exact_number(f"{top}/{bottom}") == value
    assert exact_number(rf"{sign}\frac{{{abs(top)}}}{{{bottom}}}") == value
    assert exact_number(str(float(2**-5))) == Fraction(1, 32)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("12", "correct"),
        (" 12\n", "correct"),
        ("12.0", "correct"),
        ("+12", "correct"),
        ("13", "wrong"),
        ("The sum is 12", "unparsable"),
        ("12 13", "unparsable"),
        ("5 + 7", "unparsable"),
        (r"\boxed{12}", "unparsable"),
        ("\u0661\u0662", "correct"),
        ("", "no_answer"),
        ("thinking 12 </think>", "no_answer"),
    ],
)
def test_format_number_wants_the_number_alone(answer: str, expected: str) -> None:
    assert verify({"answer": "12", "format": "number"}, answer).status == expected


def test_only_the_last_box_of_the_final_answer_counts() -> None:
    gold = {"answer": "7", "format": "boxed"}
    assert verify(gold, r"<think>\boxed{7}</think> I do not know").status == "no_answer"
    assert verify(gold, r"\boxed{7} or \boxed{8}").status == "wrong"
    assert verify(gold, "the answer is 7").status == "no_answer"
    assert verify(gold, rf"\boxed{{{'7' * 1001}}}").status == "unparsable"


TOWERS = [
    r"9^{9^{9^9}}",
    "10^9!",
    r"\binom{10^9}{10^8}",
    r"\sum_{n=1}^{10^{12}} n^{n}",
    "(" * 300 + "1" + ")" * 300,
    "{" * 300 + "1" + "}" * 300,
    r"2^{2^{2^{2^{2}}}}",
]


# The alarm may go off inside a garbage-collector callback, where it is lost; the next one is heard.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("answer", TOWERS)
def test_towers_end_within_the_soft_limit(answer: str) -> None:
    start = time.process_time()
    assert status("100", answer) == "unparsable"
    assert time.process_time() - start < 1.3


def test_honest_answers_are_not_too_deep() -> None:
    assert not too_deep(r"e^{x^{2^{y}}}")
    assert not too_deep("x^{2}" * 100 + "(1)" * 100)
    assert too_deep("x^{y^{z^{w^{v}}}}")


@given(st.text(alphabet="0123456789()[]{}^+-\\., ", max_size=40))
def test_no_answer_breaks_the_spelling_rules(text: str) -> None:
    quantity, _ = measure(respell(text))
    exact_number(quantity)
    brackets(quantity)
    too_deep(quantity)


def test_units_need_a_quantity() -> None:
    assert measure(r"5 \text{ kilometers}") == ("5", "km")
    assert measure(r"\text{Monday}") == (r"\text{Monday}", "")
    assert measure(r"x = \text{yes}") == (r"x = \text{yes}", "")
    assert measure(r"3 \text{mW}") != measure(r"3 \text{MW}")


@pytest.mark.parametrize(
    "answer", ["12", "-3.5", r"\frac{1}{2}", r"\sqrt{2}", "x^2+1", "(1,2]", r"\text{Monday}"]
)
def test_good_gold_checks_itself(answer: str) -> None:
    self_check({"answer": answer, "format": "boxed"})


@pytest.mark.parametrize(
    "reference",
    [
        {"answer": "", "format": "boxed"},
        {"answer": "  ", "format": "number"},
        {"answer": "twelve", "format": "number"},
        {"answer": r"\frac{1}{", "format": "boxed"},
        {"answer": "9^{9^{9^{9}}}", "format": "boxed"},
        {"answer": "1" * 1001, "format": "boxed"},
        {"answer": 12, "format": "number"},
        {"answer": "12", "format": "prose"},
        {"format": "number"},
    ],
)
def test_bad_gold_is_refused(reference: dict[str, object]) -> None:
    with pytest.raises(InputError, match="reference"):
        self_check(reference)


def test_integers_take_the_fast_path() -> None:
    start = time.process_time()
    for number in range(5000):
        status(str(number), str(number + number % 2))
    assert time.process_time() - start < 1.0
