"""Verdicts of whole answers: the known reward hacks, and right answers that other judges refuse."""

import secrets
import textwrap
import time
from typing import Any

import pytest

from apriel_mcore.errors import InputError, VerifierError
from apriel_mcore.types import Verdict
from apriel_mcore.verify import wire
from apriel_mcore.verify.code import self_check
from apriel_mcore.verify.code import verify as verify_with
from apriel_mcore.verify.sandbox import SandboxLimits, open_sandbox
from apriel_mcore.verify.values import encode

LIMITS = SandboxLimits(cpu_s=2.0, wall_s=20.0)


def verify(reference: dict[str, Any], text: str, limits: SandboxLimits) -> Verdict:
    return verify_with(reference, text, limits, open_sandbox("bwrap"))


def calls(*tests: tuple[tuple[Any, ...], Any], entry_point: str = "f") -> dict[str, Any]:
    """A reference of calls: pairs of arguments and the expected value."""
    return {
        "entry_point": entry_point,
        "tests": [{"args": [encode(arg) for arg in args], "expected": encode(want)} for args, want in tests],
    }


def programs(*tests: tuple[str, str]) -> dict[str, Any]:
    """A reference of programs: pairs of stdin and stdout."""
    return {"tests": [{"stdin": stdin, "expected": stdout} for stdin, stdout in tests]}


def answer(code: str, reference: dict[str, Any], limits: SandboxLimits = LIMITS) -> Verdict:
    """The verdict on dedented code in a fence, behind some talk."""
    return verify(reference, f"Here it is.\n```python\n{textwrap.dedent(code).strip()}\n```\nDone.", limits)


ADD = calls(((1, 2), 3), ((-1, 1), 0))


def test_correct() -> None:
    verdict = answer("def f(a, b): return a + b", ADD)
    assert verdict == Verdict(score=1.0, success=True, status="correct")


def test_every_test_counts() -> None:
    verdict = answer("def f(a, b): return 3", ADD)
    assert (verdict.status, verdict.score, verdict.success) == ("wrong", 0.0, False)
    assert verdict.detail == "1 of 2 tests passed, test 1: wrong"


@pytest.mark.parametrize(
    ("code", "detail"),
    [
        ("def f(a, b): return 1 / 0", "ZeroDivisionError"),
        ("def f(a): return a", "TypeError"),
        ("import sys\ndef f(a, b): sys.exit(0)", "SystemExit"),
        ("def g(a, b): return a + b", "load: KeyError"),
        ("raise RuntimeError", "load: RuntimeError"),
        ("import numpy\ndef f(a, b): return a + b", "load: ModuleNotFoundError"),
        ("def f(a, b): return object()", "ValueNotPlain"),
        ("import os\ndef f(a, b): os._exit(0)", "no reply (exit)"),
        ("import os\nos._exit(0)", "no reply (exit)"),
        ("import ctypes\ndef f(a, b): ctypes.string_at(0)", "no reply (exit)"),
        ("def f(a, b): return f(a, b)", "RecursionError"),
        ("def f(a, b): return [0] * (1 << 30)", "MemoryError"),
    ],
)
def test_failures_are_wrong_and_say_why(code: str, detail: str) -> None:
    verdict = answer(code, ADD)
    assert verdict.status == "wrong"
    assert detail in verdict.detail


NAMELESS = """
class M(type): __name__ = property(lambda c: "\\ud800")
class E(Exception, metaclass=M): pass
"""


@pytest.mark.parametrize(
    "code", [NAMELESS + "def f(a, b): raise E", NAMELESS + "raise E", "def f(a, b): return '\\udfff'"]
)
def test_what_utf8_cannot_say_is_a_wrong_answer(code: str) -> None:
    verdict = answer(code, ADD)
    assert verdict.status == "wrong"
    assert wire.encode(wire.Graded(verdict))


def test_no_answer() -> None:
    assert verify(ADD, "I cannot solve this.", LIMITS).status == "no_answer"
    assert verify(ADD, "```python\n\n```", LIMITS).status == "no_answer"


def test_bare_code_only_where_the_reference_allows_it() -> None:
    code = "def f(a, b):\n    return a + b"
    assert verify(ADD, code, LIMITS).status == "no_answer"
    assert verify({**ADD, "bare": True}, code, LIMITS).success


def test_the_last_block_of_the_final_response_counts() -> None:
    wrong, right = "```python\ndef f(a, b): return 0\n```", "```python\ndef f(a, b): return a + b\n```"
    marker = "[BEGIN FINAL RESPONSE]"
    assert verify(ADD, f"{wrong}\n---\n{marker}{right}", LIMITS).success
    assert verify(ADD, f"{wrong}\n---\n{right}", LIMITS).success
    assert not verify(ADD, f"{right}\n{marker}{wrong}", LIMITS).success


@pytest.mark.parametrize(
    "code", ["def f(a, b) return a", "def f(a, b):\nreturn a", "x = '\0'", "f = " + "(" * 2000 + ")" * 2000]
)
def test_unparsable(code: str) -> None:
    assert answer(code, ADD).status == "unparsable"


def test_too_long_is_unparsable() -> None:
    assert answer("x = 1\n" * 20_000, ADD).status == "unparsable"


@pytest.mark.parametrize(
    ("code", "wall_s"),
    [("def f(a, b):\n    while True: pass", 30.0), ("import time\ndef f(a, b): time.sleep(600)", 1.0)],
)
def test_timeout(code: str, wall_s: float) -> None:
    verdict = answer(code, ADD, SandboxLimits(cpu_s=1.0, wall_s=wall_s))
    assert (verdict.status, verdict.score) == ("timeout", 0.0)


# The three hacks that a pasted test script accepts, and those against this harness.

PRINT_AND_EXIT = """
import os
def f(a, b):
    print("All tests passed"); print('{"test": 0, "value": 3}', flush=True)
    os._exit(0)
"""

ALWAYS_EQUAL = """
class Any:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return 0
def f(a, b): return Any()
"""

EQUAL_INT = """
class Any(int):
    def __eq__(self, other): return True
    __hash__ = int.__hash__
def f(a, b): return Any(0)
"""

READ_CALLER = """
import sys
def f(a, b):
    frame = sys._getframe()
    while frame:
        for names in (frame.f_locals, frame.f_globals):
            for name in ("_expected", "expected", "want", "gold", "answer"):
                if name in names:
                    return names[name]
        frame = frame.f_back
"""

FORGE = """
import json, os, sys
def f(a, b):
    replies = sys._getframe(1).f_locals["replies"]
    for test in range(2):
        for value in range(-5, 5):
            replies.send(test=test, value=value)
    os._exit(0)
"""


@pytest.mark.parametrize("code", [PRINT_AND_EXIT, ALWAYS_EQUAL, EQUAL_INT, READ_CALLER, FORGE])
def test_reward_hacks_fail(code: str) -> None:
    assert answer(code, calls(((1, 2), 3), ((2, 2), 4))).status == "wrong"


SEARCH_HEAP = """
import gc, sys
def f(prefix):
    seen, todo = set(), gc.get_objects() + [vars(module) for module in sys.modules.values()]
    frame = sys._getframe()
    while frame:
        todo.append(dict(frame.f_locals))
        frame = frame.f_back
    while todo and len(seen) < 500_000:
        item = todo.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, str) and item.startswith(prefix) and len(item) > len(prefix):
            return item
        if isinstance(item, dict):
            todo += list(item) + list(item.values())
        elif isinstance(item, (list, tuple, set)):
            todo += list(item)
"""


def test_the_expected_value_is_nowhere_in_the_sandbox() -> None:
    prefix = "wanted-" + secrets.token_hex(4)
    found = answer(SEARCH_HEAP, calls(((prefix,), f"{prefix}-and-more")))
    assert found.status == "wrong"
    as_argument = answer(
        SEARCH_HEAP, calls(((prefix,), f"{prefix}-and-more"), ((f"{prefix}-and-more",), None))
    )
    assert (
        "test 1" in as_argument.detail or as_argument.success
    )  # the search works: it finds another test's input


COLLIDE = """
import sys
def f(a, b):
    integers = [hex(i * (2**61 - 1)) for i in range(1, 25_000)]
    sys._getframe(1).f_locals["replies"].send(test=0, value={"set": [{"int": text} for text in integers]})
    return 0
"""


def test_colliding_integers_do_not_stall_the_judge() -> None:
    started = time.process_time()
    assert answer(COLLIDE, ADD).status == "wrong"
    assert time.process_time() - started < 1.0


# Right answers that a naive harness refuses.

FUTURE_IMPORT = """
from __future__ import annotations
def f(a: Missing, b) -> Missing: return a + b
"""

SOLUTION_CLASS = """
class Solution:
    def f(self, a, b): return self.first(a) + b
    def first(self, a): return a
"""

MAIN_BLOCK = """
def f(a, b): return a + b
if __name__ == "__main__":
    print(f(*map(int, input().split())))
"""

ON_STDERR = """
import sys
def f(a, b):
    print("Traceback: exception", file=sys.stderr)
    return a + b
"""

DATACLASS = """
from __future__ import annotations
from dataclasses import dataclass
@dataclass
class Point:
    x: int
def f(a, b): return Point(a).x + b
"""

RECURSION = """
import sys
sys.setrecursionlimit(10**6)
def f(n): return 0 if n == 0 else 1 + f(n - 1)
"""

THREADS = """
from concurrent.futures import ThreadPoolExecutor
def f(a, b):
    with ThreadPoolExecutor(2) as pool: return sum(pool.map(int, (a, b)))
"""

TEMPORARY_FILE = """
import tempfile
def f(a, b):
    with tempfile.TemporaryFile() as stream: stream.write(b"x")
    return a + b
"""

COUNTER = """
from collections import Counter
def f(text): return Counter(text)
"""

RIGHT = {
    "future_import": (FUTURE_IMPORT, ADD),
    "multi_line_string": ('def f():\n    return len("""ab\n  cd""")', calls(((), 7))),
    "float_sum": ("def f(a, b): return a + b", calls(((0.1, 0.2), 0.3))),
    "float_zero": ("import math\ndef f(): return math.sin(math.pi)", calls(((), 0.0))),
    "solution_class": (SOLUTION_CLASS, ADD),
    "named_method": (SOLUTION_CLASS, {**ADD, "entry_point": "Solution.f"}),
    "debug_prints": ("def f(a, b):\n    print('x' * 10_000_000)\n    return a + b", ADD),
    "words_on_stderr": (ON_STDERR, ADD),
    "main_block": (MAIN_BLOCK, ADD),
    "dataclass": (DATACLASS, ADD),
    "deep_recursion": (RECURSION, calls(((20_000,), 20_000))),
    "changed_arguments": ("def f(xs):\n    xs.clear()\n    return 0", calls((([1],), 0), (([1],), 0))),
    "tuple": ("def f(a): return (a, [a])", calls(((1,), (1, [1])))),
    "counter": (COUNTER, calls((("aab",), {"a": 2, "b": 1}))),
    "huge_integer": ("def f(n): return 10 ** n", calls(((5000,), 10**5000))),
    "threads": (THREADS, ADD),
    "temporary_file": (TEMPORARY_FILE, ADD),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers_pass(name: str) -> None:
    verdict = answer(*RIGHT[name])
    assert verdict.success, verdict.detail


def test_a_list_is_not_a_tuple() -> None:
    assert answer("def f(): return [1]", calls(((), (1,)))).status == "wrong"


# Programs.

SUM = programs(("1 2\n3\n", "6\n"), ("5\n", "5"))
INPUT_LOOP = """
total = 0
try:
    while True: total += sum(map(int, input().split()))
except EOFError:
    print(total)
"""

MIXED_READS = """
import sys
first = sys.stdin.buffer.readline()
print(sum(map(int, (first + sys.stdin.buffer.read()).split())))
"""

MAIN_PROGRAM = """
def main(): print(sum(map(int, open(0).read().split())))
if __name__ == "__main__": main()
"""

THREAD_PROGRAM = """
import sys, threading
sys.setrecursionlimit(10**6)
def main(): print(sum(map(int, sys.stdin.read().split())))
threading.Thread(target=main).start()
"""

STDERR_PROGRAM = """
import sys
print("exception", file=sys.stderr)
print(sum(map(int, sys.stdin.read().split())))
"""

PROGRAMS = {
    "read_fd": "print(sum(map(int, open(0).read().split())))",
    "input_loop": INPUT_LOOP,
    "mixed_reads": MIXED_READS,
    "line_then_rest": "import sys\nprint(sum(map(int, (input() + ' ' + sys.stdin.read()).split())))",
    "isatty": "import sys\nassert not sys.stdin.isatty()\nprint(sum(map(int, sys.stdin.read().split())))",
    "main_block": MAIN_PROGRAM,
    "thread": THREAD_PROGRAM,
    "exit": "import sys\nprint(sum(map(int, sys.stdin.read().split())))\nsys.exit()",
    "stderr": STDERR_PROGRAM,
    "atexit": "import atexit\natexit.register(lambda: print(sum(map(int, open(0).read().split()))))",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_right_programs_pass(name: str) -> None:
    verdict = answer(PROGRAMS[name], SUM)
    assert verdict.success, verdict.detail


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("print(6)", "wrong"),
        ("print(sum(map(int, open(0).read().split())))\nraise SystemExit(1)", "wrong"),
        ("raise ValueError", "wrong"),
        ("print(", "unparsable"),
        ("while True: pass", "timeout"),
    ],
)
def test_other_programs_do_not(code: str, status: str) -> None:
    assert answer(code, SUM, SandboxLimits(cpu_s=1.0, wall_s=30.0)).status == status


# The reference.


@pytest.mark.parametrize(
    ("reference", "field"),
    [
        ({"entry_point": "f"}, "tests"),
        ({"entry_point": "f", "tests": []}, "tests"),
        ({"entry_point": "f", "tests": [{"args": [], "expected": {"bytes": "x"}}]}, "tests[0]"),
        ({"entry_point": "f", "tests": [{"args": [[1]], "expected": 1}]}, "tests[0]"),
        ({"tests": [{"stdin": "x", "expected": 1}]}, "tests[0]: expected"),
        ({"tests": [{"stdin": "x" * (2 << 20), "expected": ""}]}, "tests[0]: stdin"),
        ({"tests": [{"stdin": "", "expected": "x" * 700_000}]}, "tests[0]: expected"),
    ],
)
def test_self_check_names_the_field(reference: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError) as caught:
        self_check(reference, LIMITS)
    assert field in str(caught.value)


def test_self_check_accepts_a_good_reference() -> None:
    self_check(ADD, LIMITS)
    self_check(SUM, LIMITS)


# Asserts and checkers.

PLAIN = "assert f(1) == 2\nassert f(0.5) == 1.0\nassert f(0) == 0"
TALKING = """
def inverse(y): return y / 2
def check(candidate):
    for x in range(5):
        assert inverse(candidate(x)) == x
    try:
        candidate(None)
        assert False
    except RuntimeError:
        pass
"""
TRUTHY = "assert f([1])\nassert not f([])"


@pytest.mark.parametrize(
    ("asserts", "code", "status"),
    [
        (PLAIN, "def f(x): return 2 * x", "correct"),
        (PLAIN, "def f(x): return x", "wrong"),
        (TRUTHY, "def f(xs): return xs", "correct"),
        (TRUTHY, "def f(xs): return True", "wrong"),
        (TALKING, "def f(x): return 2 * x", "correct"),
        (TALKING, "def f(x): return 2 * (x or 1)", "wrong"),
        (TALKING, "def f(x): return x * 2 if x else 0", "wrong"),
        (TALKING, "def f(x): return x *", "unparsable"),
        (TALKING, ALWAYS_EQUAL.replace("(a, b)", "(a)"), "wrong"),
        (TALKING, "import os\ndef f(x): os._exit(0)", "wrong"),
    ],
)
def test_asserts(asserts: str, code: str, status: str) -> None:
    assert answer(code, {"asserts": asserts, "entry_point": "f"}).status == status


def test_an_assert_dialogue_has_one_time_budget() -> None:
    code = "import time\ndef f(x):\n    time.sleep(0.3)\n    return 2 * x"
    limits = SandboxLimits(cpu_s=2.0, wall_s=0.7)
    assert answer(code, {"asserts": TALKING, "entry_point": "f"}, limits).status == "timeout"


ANY_DIVISOR = """
def check(given, expected, found):
    return type(found) is int and 1 < found < given[0] and given[0] % found == 0
"""
ANY_ORDER = "def check(given, expected, found): return sorted(found.split()) == sorted(expected.split())"


def test_a_checker_accepts_what_it_says() -> None:
    reference = {**calls(((12,), None), ((35,), None)), "checker": ANY_DIVISOR}
    divisor = "def f(n): return next(d for d in range({}) if n % d == 0)"
    assert answer(divisor.format("2, n"), reference).success
    assert answer(divisor.format("n - 1, 1, -1"), reference).success
    assert answer("def f(n): return 3", reference).status == "wrong"
    assert answer(ALWAYS_EQUAL.replace("(a, b)", "(a)"), reference).status == "wrong"
    program = {**programs(("3 1", "1 3")), "checker": ANY_ORDER}
    assert answer("print(*reversed(sorted(input().split())))", program).success
    assert answer("print(1)", program).status == "wrong"
    assert answer("print(1, 3)\nraise ValueError", program).status == "wrong"


@pytest.mark.parametrize(
    ("checker", "why"),
    [
        ("def check(given, expected, found): return 1 / 0", "ZeroDivisionError"),
        ("def check(given, expected, found): return 1", "found 1 for an answer"),
        ("def check(given, expected, found): return type(found) is int and 12 // found < 0 or None", "None"),
        ("1 / 0", "ZeroDivisionError"),
        ("def check(given, expected, found):\n    while True: pass", "cpu"),
    ],
)
def test_a_checker_that_fails_is_nobodys_wrong_answer(checker: str, why: str) -> None:
    reference = {**calls(((12,), 3)), "checker": checker}
    with pytest.raises(VerifierError, match=why):
        answer("def f(n): return 4", reference, SandboxLimits(cpu_s=1.0, wall_s=20.0))


def test_a_checker_too_slow_for_all_tests_blames_no_right_answer() -> None:
    slow = """
import time
def check(given, expected, found):
    end = time.process_time() + 0.5
    while time.process_time() < end: pass
    return found == expected
"""
    reference = {**calls(*(((n,), n) for n in range(5))), "checker": slow}
    with pytest.raises(VerifierError, match="cpu"):
        answer("def f(n): return n", reference, SandboxLimits(cpu_s=1.0, wall_s=20.0))


SORTED = "def check(given, expected, found): return sorted(found) == expected"
PAIR_SUM = "def check(given, expected, found): return sum(map(int, found.split())) == int(expected)"
ALL_PAIRS = """
def check(given, expected, found):
    return all(any(x == y for y in found) for x in found) and sorted(found) == expected
"""


@pytest.mark.parametrize(
    ("reference", "code", "status"),
    [
        ({**calls(((), [1, 2])), "checker": SORTED}, "def f(): return [2, 1]", "correct"),
        ({**calls(((), [1, 2])), "checker": SORTED}, "def f(): return None", "wrong"),
        ({**calls(((), [1, 2])), "checker": SORTED}, "def f(): return [1, 'a']", "wrong"),
        (
            {**calls(((1,), [1, 2]), ((2,), [1])), "checker": SORTED},
            "def f(n): return [1] * (n - 1)",
            "wrong",
        ),
        ({**calls(((), [1, 2])), "checker": ALL_PAIRS}, "def f(): return [*range(100_000)]", "wrong"),
        ({**programs(("3", "3")), "checker": PAIR_SUM}, "print(1, 2)", "correct"),
        ({**programs(("3", "3")), "checker": PAIR_SUM}, "print('sorry')", "wrong"),
        (
            {**programs(("3", "3"), ("1", "1")), "checker": PAIR_SUM},
            "print(('x', '0 1')[input() == '1'])",
            "wrong",
        ),
    ],
)
def test_a_checker_that_fails_on_an_answer_only_has_refused_it(
    reference: dict[str, Any], code: str, status: str
) -> None:
    assert answer(code, reference, SandboxLimits(cpu_s=1.0, wall_s=20.0)).status == status


def test_lenient_sequences_and_tolerance() -> None:
    pair = calls(((), [1, 0.5]))
    assert answer("def f(): return (1, 0.5)", {**pair, "sequences": "lenient"}).success
    assert not answer("def f(): return [1, 0.501]", pair).success
    assert answer("def f(): return [1, 0.501]", {**pair, "rel_tol": 0.01}).success
