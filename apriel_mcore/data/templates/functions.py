"""One-line Python functions: "Write a Python function add_3(x) that returns x plus 3. One line." """

from collections.abc import Callable, Sequence
from math import prod
from random import Random

import msgspec

from apriel_mcore.config.schema import TemplateSource
from apriel_mcore.data.item import Item, Shot, conversation, evenly
from apriel_mcore.errors import InputError

type Plain = int | str | bool

_NUMBERS = tuple(range(2, 31))
_SMALL = tuple(range(2, 10))
_LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")

_INTEGERS = (0, 1, -3, 7, 12, 40)
_WORDS = ("", "a", "banana", "Tree house", "xyzzy", "noon on moon")
_PAIRS = ((0, 0), (2, 5), (5, 2), (-4, 3), (9, 9))


class _Family(msgspec.Struct, frozen=True):
    """Functions that differ in one constant k; `{}` stands for it."""

    name: str
    purpose: str
    body: str
    constants: tuple[Plain, ...]
    solve: Callable[..., Plain]
    """`solve(k, *args)`: the expected value. Written apart from `body`, so that each checks the other."""


NUMBERS = (
    _Family("add_{}", "x plus {}", "x + {}", _NUMBERS, lambda k, x: x + k),
    _Family("subtract_{}", "x minus {}", "x - {}", _NUMBERS, lambda k, x: x - k),
    _Family("times_{}", "x times {}", "x * {}", _NUMBERS, lambda k, x: x * k),
    _Family("from_{}", "{} - x", "{} - x", _NUMBERS, lambda k, x: k - x),
    _Family("modulo_{}", "x % {}", "x % {}", _NUMBERS, lambda k, x: x - x // k * k),
    _Family("above_{}", "x > {}", "x > {}", _NUMBERS, lambda k, x: k < x),
    _Family("below_{}", "x < {}", "x < {}", _NUMBERS, lambda k, x: k > x),
    _Family("equals_{}", "x == {}", "x == {}", _NUMBERS, lambda k, x: not (x < k or x > k)),
    _Family("divides_by_{}", "True if x % {} is 0", "x % {} == 0", _SMALL, lambda k, x: x // k * k == x),
    _Family("at_least_{}", "the larger of x and {}", "max(x, {})", _NUMBERS, lambda k, x: x if x > k else k),
    _Family("at_most_{}", "the smaller of x and {}", "min(x, {})", _NUMBERS, lambda k, x: x if x < k else k),
    _Family("power_{}", "x to the power {}", "x ** {}", (2, 3, 4, 5), lambda k, x: prod([x] * k)),
)
WORDS = (
    _Family("first_{}", "the first {} characters of s", "s[:{}]", _SMALL, lambda k, s: "".join([*s][:k])),
    _Family("repeat_{}", "s repeated {} times", "s * {}", _SMALL, lambda k, s: "".join([s] * k)),
    _Family("longer_{}", "True if len(s) > {}", "len(s) > {}", _SMALL, lambda k, s: s[k:] != ""),
    _Family("count_{}", 'how often "{}" is in s', 's.count("{}")', _LETTERS, lambda k, s: [*s].count(k)),
    _Family("has_{}", 'True if "{}" is in s', '"{}" in s', _LETTERS, lambda k, s: k in set(s)),
    _Family("append_{}", 's plus "{}"', 's + "{}"', _LETTERS, lambda k, s: f"{s}{k}"),
    _Family(
        "starts_{}", 'True if s starts with "{}"', 's.startswith("{}")', _LETTERS, lambda k, s: s[:1] == k
    ),
)
PAIRS = (
    _Family("sum_plus_{}", "a + b + {}", "a + b + {}", _SMALL, lambda k, a, b: sum([a, b, k])),
    _Family("product_plus_{}", "a * b + {}", "a * b + {}", _SMALL, lambda k, a, b: prod([a, b]) + k),
)

_TASK = "Write a Python function {} that returns {}. One line."
_EXAMPLES = (
    Shot(_TASK.format("double(x)", "x times 2"), "def double(x): return x * 2"),
    Shot(_TASK.format("size(s)", "the length of s"), "def size(s): return len(s)"),
    Shot(_TASK.format("add(a, b)", "a plus b"), "def add(a, b): return a + b"),
)


def items(source: TemplateSource) -> list[Item]:
    """Problems of `verify/code`, families in equal parts as far as there are enough.

    Train and held-out problems share families and never a constant of one. The first `shots` examples
    stand before every question, the same for all, so that servers compute their prefix once.
    """
    if source.shots > len(_EXAMPLES):
        raise InputError(f"shots = {source.shots}: the functions template has {len(_EXAMPLES)} examples")
    rng = Random(f"functions {source.seed}")
    families = (*NUMBERS, *WORDS, *PAIRS)
    candidates = [(family, constant) for family in families for constant in family.constants]
    chosen = evenly(candidates, lambda candidate: candidate[0].name, source.size, rng)
    return [_item(family, constant, source.shots) for family, constant in chosen]


def _item(family: _Family, constant: Plain, num_shots: int) -> Item:
    name = family.name.format(constant)
    parameters, inputs = _inputs(family, constant)
    head = f"{name}({parameters})"
    question = _TASK.format(head, family.purpose.format(constant))
    tests = [{"args": list(args), "expected": family.solve(constant, *args)} for args in inputs]
    gold = f"def {head}: return {family.body.format(constant)}"
    return Item(
        messages=conversation(_EXAMPLES[:num_shots], question),
        verifier="code",
        reference={"entry_point": name, "tests": tests, "bare": True, "gold": gold},
        split_key=name,
    )


def _inputs(family: _Family, constant: Plain) -> tuple[str, Sequence[tuple[Plain, ...]]]:
    """Parameter names and hidden inputs: the usual edge cases, and those around the constant."""
    if family in PAIRS:
        return "a, b", _PAIRS
    if family in WORDS:
        near = (constant, f"{constant}o{constant}", f"o{constant}") if isinstance(constant, str) else ()
        return "s", [(word,) for word in dict.fromkeys((*_WORDS, *near))]
    near = (constant - 1, constant, constant + 1) if isinstance(constant, int) else ()
    return "x", [(number,) for number in dict.fromkeys((*_INTEGERS, *near))]
