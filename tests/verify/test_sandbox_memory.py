"""A solution reads all memory it can reach, and finds nothing there that belongs to another run.

Its process is a copy of the server's, so whatever the server once read would be in it, freed or not: other
answers to the problem, what their programs printed, and the expected values that a checker or asserts get.
"""

import secrets
from collections.abc import Iterator
from typing import Any, get_args

import pytest

from apriel_mcore.verify import code
from apriel_mcore.verify.sandbox import Job, Sandbox, SandboxLimits, open_sandbox
from apriel_mcore.verify.sandbox_launch import Backend
from apriel_mcore.verify.values import decode

LIMITS = SandboxLimits(cpu_s=10.0, wall_s=30.0)
SIZES = (0, 100, 400, 3000, 100_000)
"""Bytes around a mark: of the interpreter's own arenas, of the C heap, of mappings of their own."""

SCANNER = r"""
import ctypes, os, re

PAGE, GAP = 4096, 64
libc = ctypes.CDLL(None)
libc.sbrk.restype = ctypes.c_void_p
libc.write.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)

def anchors():
    yield libc.sbrk(0) - 1
    yield ctypes.cast(libc.write, ctypes.c_void_p).value
    yield ctypes.c_void_p.in_dll(libc, "environ").value
    yield from map(id, (object(), os, re.compile("a|b"), [0] * 1000))

def memory():
    # /proc/self/maps may be closed; but the kernel copies a page into a pipe, or says that there is none.
    out, into = os.pipe()
    seen = set()
    for anchor in anchors():
        for step in (-PAGE, PAGE):
            at, missing = anchor // PAGE * PAGE + max(step, 0), 0
            while missing < GAP and at not in seen:
                seen.add(at)
                num_bytes = libc.write(into, at, 2 * PAGE)
                missing = 0 if num_bytes > 0 else missing + 1
                if num_bytes > 0:
                    yield os.read(out, num_bytes)
                at += step

def scan(pattern):
    return {found.decode() for piece in memory() for found in re.findall(pattern, piece)}
"""

FIND_MARKS = (
    SCANNER
    + r"""
def attack(reversed_head, own):
    keep = [reversed_head[::-1] + own, (reversed_head[::-1] + own + " " * 3000).encode()]
    return sorted(scan(reversed_head[::-1].encode() + b"([0-9a-f]{16})"))
"""
)


@pytest.fixture(params=get_args(Backend))
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    sandbox = Sandbox(open_sandbox(request.param).launcher)
    yield sandbox
    sandbox.close()


def in_source(text: str) -> Job:
    return Job(source=f"def f(): return len({text!r})", entry_point="f", inputs_N=[[]])


def in_arguments(text: str) -> Job:
    return Job(source="def f(x): return len(x)", entry_point="f", inputs_N=[[text]])


def in_a_value(text: str) -> Job:
    return Job(source=f"def f(): return {text[::-1]!r}[::-1]", entry_point="f", inputs_N=[[]])


def in_stdin(text: str) -> Job:
    return Job(source="print(len(input()))", entry_point="", inputs_N=[text, text])


def in_output(text: str) -> Job:
    return Job(source=f"print({text[::-1]!r}[::-1])", entry_point="", inputs_N=["", ""])


@pytest.mark.parametrize("place", [in_source, in_arguments, in_a_value, in_stdin, in_output])
def test_an_earlier_run_is_not_in_memory(sandbox: Sandbox, place: Any) -> None:
    head, own = "mark-" + secrets.token_hex(8) + "=", secrets.token_hex(8)
    find = Job(source=FIND_MARKS, entry_point="attack", inputs_N=[[head[::-1], own]])
    for size in SIZES:
        marked = " " * size + head + secrets.token_hex(8) + " " * size
        assert len([reply for reply in sandbox.run(place(marked), LIMITS).replies if "test" in reply]) > 0
        before = sandbox._server
        ran = sandbox.run(find, LIMITS)
        assert sandbox._server is before is not None, "both runs are of one server"
        assert [decode(reply["value"]) for reply in ran.replies if "test" in reply] == [[own]], size


COPY = (
    SCANNER
    + r"""
def f(n):
    return int(max(scan(b"wanted" + b": ([0-9]{9})"), default=0))
"""
)
WANTED = 735_192_846
NOTE = "".join(f"    # note {number}: what the statement says is asserted here\n" for number in range(12))
ASSERTS = (
    f"def check(candidate):\n{NOTE}    value = candidate(3)  # wanted: {WANTED}\n    assert value == {WANTED}"
)
CHECKER = f"def check(given, expected, found):\n{NOTE}    return found == {WANTED}  # wanted: {WANTED}"


@pytest.mark.parametrize(
    "reference",
    [
        {"asserts": ASSERTS, "entry_point": "f"},
        {"tests": [{"args": [3], "expected": WANTED}], "entry_point": "f", "checker": CHECKER},
    ],
    ids=["asserts", "checker"],
)
def test_expected_values_cannot_be_copied(sandbox: Sandbox, reference: dict[str, Any]) -> None:
    honest = f"```python\ndef f(n): return {WANTED}\n```"
    assert code.verify(reference, honest, LIMITS, sandbox).success
    for _ in range(2):
        assert code.verify(reference, f"```python\n{COPY}\n```", LIMITS, sandbox).status == "wrong"
