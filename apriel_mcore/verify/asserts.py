"""Which calls and values does an assert-style test state? Read from the syntax tree; nothing is run.

    assert f([1, 2], k) == (3, "x"), "why"  ->  entry point f, arguments [1, 2] and k, expected (3, "x")

Then the expected values stay outside the sandbox, and all tests share one run. Nearly all of MBPP's and
HumanEval's asserts are such; the others are for dialogue.py.
"""

import ast
import operator
from collections.abc import Callable
from typing import Any

import msgspec

from apriel_mcore.errors import InputError
from apriel_mcore.verify.values import ValueNotPlain, encode

_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_LARGEST = 10**18
_TOLERANCE = 1e-6
_LARGEST_POWER = 100


class NotPlain(InputError):
    """An assert says more than a plain call and a plain value."""


class StatedTests(msgspec.Struct, frozen=True):
    """What the asserts of one problem call, and what they expect."""

    callee: str
    """The name called: the entry point (MBPP), or a parameter that stands for it (`candidate`, HumanEval)."""
    tests: tuple[dict[str, Any], ...]
    """`{"args": [...], "expected": ..., "compare": ...}`, trees of values.encode, as code.CodeTest has."""


def read_asserts(source: str) -> StatedTests:
    """All asserts in a piece of Python, at top level and inside a check function.

    Understood: `f(literals) == literal`, `f(literals) is None` (True, False), `f(literals)` and its `not` as
    truth, and `abs(f(literals) - literal) < small` as a float to be compared with a tolerance of 1e-6; sums,
    products and powers of literals. `assert True` states nothing. NotPlain when any assert says something
    else or they call different functions; InputError when there is none, or the source is not Python.
    """
    try:
        return _read(ast.parse(source))
    except (SyntaxError, ValueError) as error:
        raise InputError(f"tests: not Python: {error}") from error
    except (RecursionError, MemoryError) as error:
        raise InputError("tests: nested too deeply to be parsed") from error


def _read(tree: ast.Module) -> StatedTests:
    stated = [
        _read_test(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assert) and not _states_nothing(node.test)
    ]
    if not stated:
        raise InputError("tests: found no assert")
    callees = {callee for callee, _ in stated}
    if len(callees) > 1:
        raise NotPlain(f"tests: expected asserts that call one function, found {sorted(callees)}")
    return StatedTests(callee=callees.pop(), tests=tuple(test for _, test in stated))


def _states_nothing(test: ast.expr) -> bool:
    return isinstance(test, ast.Constant) and test.value is True


def _read_test(node: ast.Assert) -> tuple[str, dict[str, Any]]:
    match node.test:
        case ast.Call() as call:
            return _test(call, True, compare="truth")
        case ast.UnaryOp(op=ast.Not(), operand=ast.Call() as call):
            return _test(call, False, compare="truth")
        case ast.Compare(left=ast.Call() as call, ops=[ast.Eq()], comparators=[expected]):
            return _test(call, _literal(expected))
        case ast.Compare(
            left=ast.Call() as call,
            ops=[ast.Is()],
            comparators=[ast.Constant(value=None | True | False as expected)],
        ):
            return _test(call, expected)
        case ast.Compare(
            left=ast.Call(
                func=ast.Name("abs"),
                args=[ast.BinOp(left=ast.Call() as call, op=ast.Sub(), right=expected)],
            ),
            ops=[ast.Lt() | ast.LtE()],
            comparators=[ast.Constant(value=float(small))],
        ) if small <= _TOLERANCE:
            return _test(call, _number(expected))
    raise NotPlain(f"tests: not of the form f(literals) == literal: {ast.unparse(node)[:200]}")


def _test(call: ast.Call, expected: object, *, compare: str = "value") -> tuple[str, dict[str, Any]]:
    if not isinstance(call.func, ast.Name) or call.keywords:
        raise NotPlain(f"tests: not a plain call with positional arguments: {ast.unparse(call)[:200]}")
    args = [_literal(arg) for arg in call.args]
    try:
        test = {"args": [encode(arg) for arg in args], "expected": encode(expected), "compare": compare}
    except ValueNotPlain as error:
        raise NotPlain(f"tests: {ast.unparse(call)[:200]}: {error}") from error
    return call.func.id, test


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(_Fold().visit(node))
    except (ValueError, TypeError, ArithmeticError) as error:
        raise NotPlain(f"tests: not a literal: {ast.unparse(node)[:200]}") from error


def _number(node: ast.expr) -> float:
    try:
        return float(_literal(node))
    except (ValueError, TypeError, OverflowError) as error:
        raise NotPlain(f"tests: not a number: {ast.unparse(node)[:200]}") from error


class _Fold(ast.NodeTransformer):
    """Replaces arithmetic on small numbers, and on texts, by its value."""

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        left, right = _literal(node.left), _literal(node.right)
        if type(node.op) not in _ARITHMETIC or not _is_small(node.op, left, right):
            return node
        return ast.copy_location(ast.Constant(_ARITHMETIC[type(node.op)](left, right)), node)


def _is_small(op: ast.operator, left: object, right: object) -> bool:
    """A datum of three characters must not become one of a billion digits."""
    if isinstance(left, str) and isinstance(right, str):
        return isinstance(op, ast.Add)
    if not isinstance(left, (int, float)) or not isinstance(right, (int, float)):
        return False
    return abs(left) <= _LARGEST and abs(right) <= (_LARGEST_POWER if isinstance(op, ast.Pow) else _LARGEST)
