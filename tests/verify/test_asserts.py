from pathlib import Path

import pytest

from apriel_mcore.errors import InputError
from apriel_mcore.verify.asserts import read_asserts
from apriel_mcore.verify.values import decode

MBPP = """
assert similar((3, 4), (5, 4)) == (4,)
assert similar([], {"a": -1}) == {1, 2}, "why"
assert similar(set(), 1.5) is None
"""

HUMANEVAL = """
METADATA = {"author": "x"}

def check(candidate):
    # simple cases
    assert candidate([1.0, 2.0], 0.3) == True
    assert True, "This prints if this assert fails 1 (good for debugging!)"
    assert abs(candidate(3.5) - 0.5) < 1e-6
"""


def test_mbpp_form() -> None:
    stated = read_asserts(MBPP)
    assert stated.callee == "similar"
    assert [decode({"list": test["args"]}) for test in stated.tests] == [
        [(3, 4), (5, 4)],
        [[], {"a": -1}],
        [set(), 1.5],
    ]
    assert [decode(test["expected"]) for test in stated.tests] == [(4,), {1, 2}, None]


def test_humaneval_form() -> None:
    stated = read_asserts(HUMANEVAL)
    assert stated.callee == "candidate"
    assert [decode(test["expected"]) for test in stated.tests] == [True, 0.5]


@pytest.mark.parametrize(
    ("source", "args", "expected"),
    [
        ("assert f(3 * 5 * 7)", [105], True),
        ("assert not f('ab' + 'c')", ["abc"], False),
        ("assert f(-2**31, [2.0 / 4.0]) == 10**9 + 7", [-(2**31), [0.5]], 10**9 + 7),
    ],
)
def test_truth_and_arithmetic(source: str, args: list[object], expected: object) -> None:
    (test,) = read_asserts(source).tests
    assert decode({"list": test["args"]}) == args
    assert decode(test["expected"]) == expected


@pytest.mark.parametrize(
    "source",
    [
        "",
        "assert True",
        "assert f(x) == 1",
        "assert f(1) == g(1)",
        "assert f(1) == 1 == 1",
        "assert f(1) != 1",
        "assert f(a=1) == 1",
        "assert f(*[1]) == 1",
        "assert m.f(1) == 1",
        "assert set(f(1)) == {1}",
        "assert f(1) == 1\nassert g(1) == 1",
        "assert f(1) == b'x'",
        "assert f([1] * 3) == 1",
        "assert f(2**1000) == 1",
        "assert f('x' * 10) == 1",
        "assert f(1 / 0) == 1",
        "assert f(2 ** 0.5 ** -1.0 ** 0.5j) == 1",
        "assert f(1) == 1e18 ** 100",
        "assert abs(f(1) - 'a') < 1e-7",
        "assert abs(f(1) - [1]) < 1e-7",
        f"assert f(1) == {'-' * 30_000}1",
        f"assert f(1) == [{'1 + ' * 20_000}1]",
        "assert not f(1) == 2",
        "assert f(1) in (1, 2)",
        "assert f(1) ==",
    ],
)
def test_anything_else_drops_the_problem(source: str) -> None:
    with pytest.raises(InputError, match="tests: "):
        read_asserts(source)


def test_nothing_is_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a literal"):
        read_asserts(f"assert f(open({str(tmp_path / 'x')!r}, 'w')) == 1")
    assert list(tmp_path.iterdir()) == []
