r"""The rules of docs/judges.md, rule by rule: (gold, answer, is it the same answer?)."""

import pytest

from apriel_mcore.config.schema import Verify
from apriel_mcore.data import wrong_math
from apriel_mcore.types import Verdict
from apriel_mcore.verify.math import verify
from apriel_mcore.verify.worker import JUDGES

MATRICES = [
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 2 \\ 1 \end{pmatrix}", False),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}", True),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{bmatrix} 1 \\ 2.0 \end{bmatrix}", True),
    (r"\begin{pmatrix} 1 \\ \frac{1}{2} \end{pmatrix}", r"\begin{pmatrix} 1 \\ 0.5 \end{pmatrix}", True),
    (r"\begin{pmatrix} 2 \\ 3 \end{pmatrix}", r"\begin{pmatrix}6\end{pmatrix}", False),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", "(1,2)", False),
    (r"\begin{pmatrix} 1 & 2 \end{pmatrix}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", False),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix} 1 & 3 \\ 2 & 4 \end{pmatrix}", False),
    (
        r"\begin{pmatrix}1&2\\3&4\end{pmatrix}",
        r"\begin{pmatrix} 1 & 2 \\ 3 & \frac{8}{2} \end{pmatrix}",
        True,
    ),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix} 1 & 2 & 3 & 4 \end{pmatrix}", False),
    (r"\begin{pmatrix}x^2-1\\0\end{pmatrix}", r"\begin{pmatrix} (x-1)(x+1) \\ 0 \end{pmatrix}", True),
    (r"\begin{cases} x=1 \\ y=2 \end{cases}", r"\begin{cases}x=1\\y=2\end{cases}", True),
    (r"\begin{cases} x=1 \\ y=2 \end{cases}", r"\begin{cases} x=1 \\ y=3 \end{cases}", False),
]
SMALL = [
    (r"1.6\times 10^{-19}", r"9.1\times 10^{-31}", False),
    (r"1.6\times 10^{-19}", "0", False),
    (r"1.6\times 10^{-19}", r"16 \cdot 10^{-20}", True),
    ("10^{-20}", "10^{-21}", False),
    (r"\frac{1}{2^{60}}", r"\frac{1}{2^{61}}", False),
    (r"\frac{1}{2^{60}}", "2^{-60}", True),
    (r"\frac{1}{52!}", r"\frac{1}{53!}", False),
    (r"10^{-70}\sqrt{2}", r"10^{-71}\sqrt{2}", False),
    (r"10^{-70}\sqrt{8}", r"2 \cdot 10^{-70}\sqrt{2}", True),
    ("(10^{-20}, 1)", "(10^{-21}, 1)", False),
    ("10^{-20}x", "10^{-21}x", False),
    (r"6.02\times10^{23}", r"6.0200000001\times10^{23}", False),
    ("1-10^{-20}", "1", False),
]
DECIMALS = [
    (r"\sqrt{2}", "1.4142135623730951", False),
    (r"\frac{1}{3}", "0.3333333333333333333333", False),
    (r"0.\overline{3}", r"\frac{1}{3}", True),
    (r"\frac{1}{6}", r"0.1\overline{6}", True),
    (r"0.\overline{3}", "0.3", False),
    ("0.5x", r"\frac{x}{2}", True),
    ("0.5x", "0.50001x", False),
    ("(0.5, 2)", r"\left(\frac{1}{2}, 2\right)", True),
    ("(0.5, 2)", "(2, 0.5)", False),
    (r"1\frac{1}{2}", "1.5", True),
    ("1.5", "1 1/2", True),
    ("3", "1 2", False),
    ("12", r"1\text{ }2", False),
    ("7.5", "7.0.5", False),
    ("7", "7.0.0", False),
    ("16", r"\boxed{7}9", False),
    ("7", r"\boxed{7}", True),
]
BASES = [
    ("101_2", "101_{2}", True),
    ("101_2", "101_3", False),
    ("101_2", "11_4", True),
    ("101_2", "101", False),
    ("101_2", "5", False),
    ("123_8", "123_9", False),
    ("1101_2", "1101_{10}", False),
    ("5", "101_2", True),
    ("5_{10}", "5", True),
    ("101_2", "5_{10}", True),
    ("123", "123_3", False),
    ("7F_{16}", "7F_{17}", False),
]
UNITS = [
    ("5 cm", "5 m", False),
    (r"5~\mathrm{kg}", "5~g", False),
    (r"5\,\mathrm{cm}", r"5\,m", False),
    (r"5\text{ cm}", "5cm", True),
    (r"10 \textbf{cm}", r"10\textbf{m}", False),
    (r"10 \operatorname{cm}", r"10 \operatorname{m}", False),
    (r"30^\circ", r"30\text{ rad}", False),
    (r"30^\circ", r"30\text{ degrees}", True),
    (r"100^{\circ}C", r"100^{\circ}F", False),
    ("5 km/h", "5 m/s", False),
    (r"60\text{ km/h}", "60 km per hour", True),
    (r"18\text{ cm}^2", r"18\text{ square centimeters}", True),
    (r"18\text{ cm}^2", "18 cm^3", False),
    (r"5\text{ apples}", r"5\text{ oranges}", False),
    ("5", r"5\text{ cm}", True),
    (r"5\text{ cm}", "5", True),
    ("2t", "2", False),
    ("2t", "2s", False),
    (r"3+2\mathrm{i}", "3", False),
    (r"2\mathbf{i}+3\mathbf{j}", r"2\mathbf{i}+3", False),
    ("5", r"5\text{ million}", False),
    ("5000000", r"5\text{ million}", True),
    ("5", r"5\text{ or more}", False),
    ("0", r"0\text{ or more}", False),
    (r"7\text{ quarters}", r"7.0\text{ quarters}", True),
    (r"7\text{ quarters}", "7", True),
    (r"\frac{7}{4}", r"7\text{ quarters}", False),
    ("7", r"7\text{ apples}\text{ not}", False),
    ("7", r"7\text{ not}\text{ apples}", False),
    ("7", r"7\text{ m}\text{wrong}", False),
    ("7", "7\\,\\text{cm\N{SUPERSCRIPT TWO}}", True),
    (r"7\text{ cm}^2", r"7\text{ cm squared}", True),
    (r"7\text{ cm}^3", r"7\text{ cm squared}", False),
    (r"7\text{ cm}", r"7\text{ cm^2}", False),
    ("7", r"7\text{ m}\cdot\text{s}^{-1}", True),
    (r"7\text{ m/s}", r"7\text{ m}\cdot\text{s}^{-1}", True),
    (r"7\text{ m/s}", r"7\text{ m}/\text{s}", True),
    (r"7\text{ m/s}", r"7\text{ m}/\text{h}", False),
    (r"7\text{ m/s^2}", r"7\text{ m/s}", False),
    ("7", r"7\text{ apples}^{-1}", False),
    ("7", r"7\text{ apples}^2", False),
    (r"15\text{ miles/gallon}", "15", True),
    ("700000", r"7\text{ lakh rupees}", True),
    (r"7\text{ pounds}", r"7\text{ pounds (lbs)}", True),
    ("7\\text{ \N{DEGREE SIGN}C}", r"7^\circ\text{C}", True),
    ("7\\text{ \N{DEGREE SIGN}C}", "7\\text{ \N{DEGREE SIGN}F}", False),
    ("7", "7'", False),
    ("7'", "7'", True),
]
BRACKETS = [
    ("a-b+c", "a-(b+c", False),
    ("a-b+c", "a-b)+c", False),
    ("2x+1", "2(x+1", False),
    ("ab+c", "a(b+c", False),
    ("42", "4]2", False),
    ("23", "2[3", False),
    ("5", "5(", False),
    ("5", "(5", True),
    ("5", "5)", True),
    ("x+1", "((x+1)", True),
    ("(1,2)", "(1,2", True),
    ("[0,1)", r"\left[0,1\right)", True),
]
MONEY = [
    ("7", r"7\text{ \$}", True),
    ("7", r"\$7\text{ per hour}", True),
    (r"\$7\text{ per hour}", r"7\text{ dollars an hour}", True),
    (r"\$7\text{ per hour}", r"\$7\text{ per day}", False),
    (r"\$18.90", "18.90", True),
    ("18.90", r"\$18.9", True),
    (r"\$32,348", "32348", True),
    (r"\$32,348", r"\$32348", True),
    (r"10\text{ dollars}", r"\$10", True),
    (r"\$5", r"5\text{ cents}", False),
    (r"\$2.5\text{ million}", "2500000", True),
]
PERCENT = [
    (r"7\%", r"7\text{\%}", True),
    ("0.07", r"7\text{ \%}", True),
    (r"50\%", "0.5", True),
    (r"50\%", "50", True),
    (r"50\%", r"50\text{ percent}", True),
    (r"12.5\%", r"\frac{1}{8}", True),
    (r"50\%", "5", False),
    ("0.5", r"50\%", True),
    ("50", r"50\%", True),
    ("0.5", r"0.5\%", False),
    (r"50\%", r"50\text{ cm}", False),
]
EQUATIONS = [
    ("5", "x=5", True),
    ("5", "3=5", False),
    ("5", "0=5", False),
    ("5", "x=y=5", False),
    ("5", "2x=5", False),
    ("x=5", "3=5", False),
    ("x=5", "y=5", False),
    ("x=5", "5", True),
    ("1,2", "3=1,4=2", False),
    ("1,2", "x=1,x=2", True),
    ("2x", "f(x)=2x", True),
    ("2x", "f(y)=2x", False),
    (r"\frac{1}{2}", r"P(A)=\frac{1}{2}", True),
    ("30", r"m\angle ABC=30^\circ", True),
    ("5", "5+x-x", False),
    ("x^2+x+1=0", "x^2+x+2=0", False),
    ("x^2+x+1=0", "2x^2+2x+2=0", True),
    ("x^2+y^2=1", "y^2=1-x^2", True),
    ("x^2+y^2=1", "x^2+y^2=4", False),
    ("xy=1", r"y=\frac{1}{x}", True),
    ("x=5", "x=7=5", False),
    ("x=5", "x=y=5", False),
    ("x=5", "x=5<7", False),
    ("x=1,x=2", "x=1=3,x=2", False),
    ("x=y=5", "x=y=5.0", True),
    ("x=y=5", "x=7=y=5", False),
    ("x=y=5", "x=z=5", False),
    ("x=1,y=2", r"x=1\text{ and }y=2", True),
    ("(1,3)", "1<x<3", True),
    ("1<x<3", "3>x>1", True),
    ("1<x<3", "4>x>1", False),
    (r"1\le x<3", r"3>x\geq 1", True),
    (r"1\le x<3", r"3\ge x>1", False),
]
ORDER = [
    ("(1,2,3)", "(3,1,2)", False),
    ("1,2,3", "3,1,2", True),
    ("1,2,3", "1,2", False),
    (r"\{1,2\}", r"\{2,1\}", True),
    ("(1,2)", "1,2", True),
    ("(1,2)", "2,1", False),
    ("x=1,y=2", "(1,2)", True),
    ("x=1,y=2", "(2,1)", False),
    ("x=1,y=2", "y=2,x=1", True),
    ("(x,y)=(1,2)", "(y,x)=(1,2)", False),
]
LETTERS = [
    ("x", "X", False),
    ("2a+b", "2A+B", False),
    ("ab", "AB", False),
    ("ab", "ba", True),
    (r"\text{Yes}", r"\text{yes}", True),
    (r"A\cup B", r"A \cup B", True),
    (r"\log_2 3", r"\log_{2}(3)", True),
]
ROWS = MATRICES + SMALL + DECIMALS + BASES + UNITS + BRACKETS + MONEY + PERCENT + EQUATIONS + ORDER + LETTERS


pytestmark = pytest.mark.usefixtures("math_library")


def judged(gold: str, answer: str, tolerance: float = 0.0) -> Verdict:
    return verify({"answer": gold, "format": "boxed"}, rf"\boxed{{{answer}}}", tolerance=tolerance)


@pytest.mark.parametrize(("gold", "answer", "same"), ROWS)
def test_rules(gold: str, answer: str, same: bool) -> None:
    assert judged(gold, answer).success is same
    assert judged(gold, gold).success


@pytest.mark.parametrize(
    ("gold", "answer", "same"),
    [
        (r"\frac{1}{3}", "0.333", True),
        (r"\frac{1}{3}", "0.332", False),
        (r"\frac{1}{3}", r"\frac{333}{1000}", False),
        ("1000", "1000.9", True),
        ("1000", "1001", False),
        (r"2\pi", "6.283", True),
        (r"1.6\times10^{-19}", r"1.6001\times10^{-19}", True),
        (r"1.6\times10^{-19}", r"9.1\times10^{-31}", False),
        (r"(\frac{1}{3}, 2)", "(0.333, 2)", True),
        (r"(\frac{1}{3}, 2)", "(2, 0.333)", False),
        (r"\{\frac{1}{3}, 2\}", r"\{2, 0.333\}", True),
        (r"[0, \frac{1}{3})", "[0, 0.333)", True),
        (r"\begin{pmatrix}\frac{1}{3}\\2\end{pmatrix}", r"\begin{pmatrix}0.333\\2\end{pmatrix}", True),
        (r"\begin{pmatrix}\frac{1}{3}\\2\end{pmatrix}", r"\begin{pmatrix}2\\0.333\end{pmatrix}", False),
    ],
)
def test_tolerance_is_relative_and_for_decimals_only(gold: str, answer: str, same: bool) -> None:
    assert judged(gold, answer, tolerance=1e-3 * 1.001).success is same
    if same:
        assert not judged(gold, answer).success


def test_the_recipe_sets_the_tolerance() -> None:
    reference = {"answer": r"\frac{1}{3}", "format": "boxed"}
    for tolerance in (0.0, 0.01):
        judge = JUDGES["math"](Verify(math_tolerance=tolerance))
        assert judge.verify(reference, r"\boxed{0.333}").success is (tolerance > 0)


@pytest.mark.parametrize(
    ("gold", "fewest"),
    [
        ("12", 40),
        ("a-b+c", 3),
        ("2(x+1)", 3),
        ("x=5", 4),
        ("-3.5", 20),
        (r"\frac{3}{4}", 20),
        (r"\$18.90", 5),
        ("(1,2)", 3),
        ("(0.5,-3,7)", 5),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", 4),
        (r"\begin{bmatrix}1&2\\3&4\end{bmatrix}", 5),
        (r"1.6 \times 10^{-19}", 4),
        ("2^{100}", 4),
        ("3x^5", 4),
        ("1101_{2}", 5),
        ("7F_{16}", 5),
        (r"5 \text{ cm}^2", 5),
        (r"5~\mathrm{kg}", 4),
        (r"30^\circ", 5),
    ],
)
def test_changed_golds_are_wrong(gold: str, fewest: int) -> None:
    others = wrong_math.answers(gold)
    assert len(set(others)) >= fewest
    assert [other for other in others if judged(gold, other).success] == []
