r"""Are two pieces of LaTeX the same number, expression, set, interval or matrix?

    LaTeX --numerals.exactly--> no floats --math-verify's parser--> sympy --names off--> equal?

Parsing and comparing is the library's, except: letters keep their case, `x = 5` answers 5 and `3 = 5` does
not, values that are named in order stay in order, and two numbers are compared relative to their size. The
caller limits the time.
"""

import logging
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, cast

from apriel_mcore.verify.numerals import exactly

_GREATER = re.compile(r"(>=?|\\g(?:eq?|t)(?![A-Za-z]))")
_LESS = {">": "<", r"\gt": "<", ">=": r"\le ", r"\ge": r"\le ", r"\geq": r"\le "}
_OTHER_RELATION = re.compile(r"[<=,]|\\(?:leq?|lt|neq?|in)(?![A-Za-z])")
_DIGITS = 50
"""Of numbers that are no fractions; inside a list the library counts them after the point."""


def warm_up() -> None:
    """Loads the library, so that the first hard answer does not pay for it."""
    equal(r"\sqrt{8}", r"2\sqrt{2}", tolerance=0.0)


def is_expression(latex: str) -> bool:
    """Whether it can be parsed."""
    return _parse(latex) is not None


def equal(gold: str, answer: str, *, tolerance: float) -> bool:
    """Equal by value; `tolerance` is relative and only for numbers of which one is written with a point."""
    gold_parsed, parsed = _parse(gold), _parse(answer)
    if gold_parsed is None or parsed is None:
        return False
    if not _has_relation(gold_parsed):
        parsed = _unnamed(parsed)
        if parsed is None:
            return False
    elif not _has_relation(parsed):
        gold_parsed = _in_order(gold_parsed)
    elif _has_chain(parsed):
        return _same_links(gold_parsed, parsed)
    if tolerance and "." in gold + answer:
        parsed = _snapped(parsed, _numbers(gold_parsed), tolerance)
    if _same(gold_parsed, parsed):
        return True
    if _has_relation(gold_parsed) or _has_relation(parsed):
        return False
    if _has_loose_i(gold_parsed) or _has_loose_i(parsed):
        return _same(_with_imaginary_unit(gold_parsed), _with_imaginary_unit(parsed))
    return False


def _same(gold: Any, answer: Any) -> bool:
    """An answer with variables is no number, even where they cancel."""
    import math_verify
    import sympy

    if _is_finite_number(gold) and isinstance(answer, sympy.Expr):
        return _is_finite_number(answer) and _same_number(gold, answer)
    same = math_verify.verify(
        gold,
        answer,
        float_rounding=_DIGITS,
        numeric_precision=_DIGITS,
        strict=True,
        allow_set_relation_comp=True,
        timeout_seconds=None,
    )
    if same and isinstance(gold, sympy.Eq) and isinstance(answer, sympy.Eq):
        return _has_solutions(gold) or _is_multiple(gold, answer)
    return same


def _same_number(gold: Any, answer: Any) -> bool:
    """Fractions exactly, anything else to _DIGITS digits of the greater one."""
    gold, answer = gold.doit(), answer.doit()
    if not (_is_finite_number(gold) and _is_finite_number(answer)):
        return False
    if gold.is_Rational and answer.is_Rational:
        return gold == answer
    return _is_near(gold, answer, 10.0 ** (2 - _DIGITS))


def _is_near(gold: Any, number: Any, tolerance: float) -> bool:
    gold, number = gold.doit(), number.doit()
    try:
        return bool(abs((gold - number).evalf(_DIGITS)) <= tolerance * abs(gold.evalf(_DIGITS)))
    except TypeError:  # a matrix among the factors, or what has no size
        return False


def _has_solutions(equation: Any) -> bool:
    """Real ones; to the library all equations without any are the same."""
    import sympy

    try:
        return bool(sympy.solve(equation, equation.free_symbols))
    except (NotImplementedError, TypeError):  # then it did not solve them either, and compared both sides
        return True


def _is_multiple(left: Any, right: Any) -> bool:
    import sympy

    return not sympy.simplify((left.lhs - left.rhs) / (right.lhs - right.rhs)).free_symbols


def _is_finite_number(expression: Any) -> bool:
    import sympy

    is_number = isinstance(expression, sympy.Expr) and not expression.free_symbols
    return is_number and expression.is_finite is not False


@lru_cache(maxsize=4096)  # the answers to one problem are often the same few
def _parse(latex: str) -> Any:
    """A sympy object; None when it is none. The case of letters counts, and units are no one's to drop."""
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig, latex2sympy
    from latex2sympy2_extended.math_normalization import NormalizationConfig
    from math_verify.grader import should_treat_as_complex

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its own alarm is off: ours is on
    latex = _ascending(exactly(latex))
    if not latex:
        return None
    try:
        return latex2sympy(
            latex,
            is_real=not should_treat_as_complex(latex),
            convert_degrees=False,
            normalization_config=NormalizationConfig(
                basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none"
            ),
            conversion_config=ConversionConfig(lowercase_symbols=False),
        )
    except Exception:  # what the parser itself raises where the text is no expression
        return None


def _ascending(latex: str) -> str:
    """`3 > x > 1` as `1 < x < 3`: the library tells the two apart."""
    parts = _GREATER.split(latex)
    if len(parts) != 5 or _OTHER_RELATION.search("".join(parts[::2])):
        return latex
    high, first, middle, second, low = parts
    return f"{low} {_LESS[second]} {middle} {_LESS[first]} {high}"


def _has_relation(parsed: Any) -> bool:
    from sympy.core.relational import Relational

    return any(isinstance(part, Relational) for part in _parts(parsed))


def _has_chain(parsed: Any) -> bool:
    """Whether it says `x = y = 5` somewhere: the library looks at its first and last sides alone."""
    import sympy
    from latex2sympy2_extended.logic import And

    chains = [part for part in _parts(parsed) if isinstance(part, And)]
    return any(isinstance(part, sympy.Eq) for chain in chains for part in _parts(chain))


def _same_links(gold: Any, answer: Any) -> bool:
    """Two chains, equation by equation."""
    from latex2sympy2_extended.logic import And

    if not (isinstance(gold, And) and isinstance(answer, And)):
        return False
    links, others = _written(gold), _written(answer)
    return len(links) == len(others) and all(_same(*pair) for pair in zip(links, others, strict=True))


def _parts(parsed: Any) -> Iterable[Any]:
    """It and, where it is a list, a set, a tuple or a chain, all within."""
    import sympy
    from latex2sympy2_extended.logic import And

    yield parsed
    if isinstance(parsed, (sympy.FiniteSet, sympy.Tuple, And)):
        for part in _written(parsed):
            yield from _parts(part)


def _written(parsed: Any) -> tuple[Any, ...]:
    """The elements in the order in which they were written; sympy sorts those of sets."""
    from latex2sympy2_extended.logic import And
    from latex2sympy2_extended.sets import FiniteSet

    if isinstance(parsed, (FiniteSet, And)):
        return cast("Any", parsed)._unsorted_args  # as the library's own comparison does
    return parsed.args


def _unnamed(parsed: Any) -> Any:
    """The values of `x = 5` or `x = 1, x = 2`; None where something other than a name equals a value."""
    import sympy
    from latex2sympy2_extended.sets import FiniteSet

    if isinstance(parsed, sympy.Eq):
        return parsed.rhs if _is_name(parsed.lhs, parsed.rhs) else None
    if _has_chain(parsed):
        return None
    if _has_relation(parsed) and isinstance(parsed, (sympy.FiniteSet, sympy.Tuple)):
        values = [_unnamed(part) for part in _written(parsed)]
        if any(value is None for value in values):
            return None
        return FiniteSet(*values) if isinstance(parsed, sympy.FiniteSet) else sympy.Tuple(*values)
    return parsed


def _is_name(left: Any, value: Any) -> bool:
    """A variable, a segment or an angle, a tuple of variables, or f(x) of a value in x or of a constant."""
    import sympy
    from sympy.core.function import AppliedUndef

    if left.is_Symbol:
        return left.name[:1].isalpha()
    if isinstance(left, sympy.Mul):
        names = [str(part) for part in left.args]
        letters = all(part.is_Symbol for part in left.args)
        return letters and ("angle" in names or all(map(str.isupper, names)))
    if isinstance(left, sympy.Tuple):
        return all(part.is_Symbol for part in left)
    if isinstance(left, AppliedUndef):
        free = value.free_symbols
        return all(part.is_Symbol for part in left.args) and (not free or set(left.args) <= free)
    return False


def _in_order(gold: Any) -> Any:
    """`x = 1, y = 2` is the pair (1, 2) for an answer without names; other golds stay."""
    import sympy

    if not isinstance(gold, sympy.FiniteSet):
        return gold
    written = _written(gold)
    names = [part.lhs for part in written if isinstance(part, sympy.Eq)]
    if len(names) != len(written) or len(set(names)) < len(names):
        return gold
    return sympy.Tuple(*(part.rhs for part in written))


def _numbers(parsed: Any) -> list[Any]:
    """The greatest parts that are numbers."""
    if _is_finite_number(parsed):
        return [parsed]
    inner = parsed.flat() if hasattr(parsed, "flat") else parsed.args
    return [number for part in inner for number in _numbers(part)]


def _snapped(parsed: Any, golds: list[Any], tolerance: float) -> Any:
    """With every number that is within tolerance of one of the gold's replaced by that."""
    import sympy

    swaps: dict[Any, Any] = {}
    for number in _numbers(parsed):
        near = [gold for gold in golds if _is_near(gold, number, tolerance)]
        if near:
            swaps[number] = near[0]
    if isinstance(parsed, sympy.MatrixBase):
        return parsed.applyfunc(lambda entry: swaps.get(entry, entry))
    if parsed in swaps:
        return swaps[parsed]
    if isinstance(parsed, sympy.Tuple | sympy.FiniteSet):
        return type(parsed)(*(swaps.get(part, part) for part in _written(parsed)))
    return parsed.xreplace(swaps)


def _has_loose_i(parsed: Any) -> bool:
    return any(str(symbol) == "i" for symbol in parsed.free_symbols)


def _with_imaginary_unit(parsed: Any) -> Any:
    """The parser reads `i` as a variable where it stands in a product; here it is the imaginary unit."""
    import sympy

    return parsed.subs({symbol: sympy.I for symbol in parsed.free_symbols if str(symbol) == "i"}).doit()
