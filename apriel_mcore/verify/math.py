r"""Is this the same number, expression, set or interval as the gold answer?

    box --respell--> equal strings? exact fractions? --> math-verify (sympy), under an alarm

The library is right on most honest pairs, but accepts what it should not and hangs on hostile input. It
sees the content of the last `\boxed{}` only, never prose; everything around it is decided here.
"""

import logging
import re
from functools import lru_cache
from typing import Any, Literal

import msgspec

from apriel_mcore.errors import InputError
from apriel_mcore.types import Verdict
from apriel_mcore.verify.alarm import OutOfTime, time_limit
from apriel_mcore.verify.answer import final_answer, last_boxed
from apriel_mcore.verify.latex import brackets, exact_number, respell, split_unit, too_deep
from apriel_mcore.verify.outcome import CORRECT, NO_ANSWER, failed, read_reference

MAX_CHARS = 1000
SOFT_LIMIT_S = 0.8
"""Of CPU; the queue, the priority of slow workers and the answer's way there and back come on top."""
_DIGITS = 15  # floats are compared after rounding to this many decimals
_BARE_NUMBER = re.compile(r"[+-]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?|[+-]?\.\d+")
_LONE_I = re.compile(r"(?<![A-Za-z\\])i(?![A-Za-z])")


class Reference(msgspec.Struct, frozen=True):
    """Gold of a math problem."""

    answer: str
    format: Literal["boxed", "number"]
    r"""boxed: the last `\boxed{}` counts; number: the whole final answer must be the number."""


def verify(reference: dict[str, Any], text: str) -> Verdict:
    """The verdict on one answer; binary. InputError when the reference is not a Reference.

    An answer that takes more than SOFT_LIMIT_S of CPU to parse or compare is unparsable.
    """
    gold = read_reference(reference, Reference)
    answer = written_answer(gold, text)
    if not answer:
        return NO_ANSWER
    if len(answer) > MAX_CHARS:
        return failed("unparsable", f"longer than {MAX_CHARS} characters")
    if gold.format == "number" and not _BARE_NUMBER.fullmatch(answer):
        return failed("unparsable", "not only a number")
    return _compare(gold.answer, answer)


def written_answer(gold: Reference, text: str) -> str:
    """The part of a model's text that is compared."""
    answer = final_answer(text)
    return last_boxed(answer) if gold.format == "boxed" else answer


def self_check(reference: dict[str, Any]) -> None:
    """InputError unless the gold parses and is accepted as an answer to itself."""
    gold = read_reference(reference, Reference)
    if not gold.answer.strip() or len(gold.answer) > MAX_CHARS:
        raise InputError(f"reference: answer must have 1 to {MAX_CHARS} characters, found {len(gold.answer)}")
    text = gold.answer if gold.format == "number" else rf"\boxed{{{gold.answer}}}"
    verdict = verify(reference, text)
    if not verdict.success:
        raise InputError(
            f"reference: answer {gold.answer!r} does not verify: {verdict.detail or verdict.status}"
        )
    quantity, _ = split_unit(respell(gold.answer))
    if exact_number(quantity) is None and not _is_comparable(quantity):
        raise InputError(f"reference: answer {gold.answer!r} cannot be parsed and compared")


def warm_up() -> None:
    """Loads the library, so that the first hard answer does not pay for it."""
    _equal_expressions(r"\sqrt{8}", r"2\sqrt{2}")


def _compare(gold: str, answer: str) -> Verdict:
    gold, answer = _respelled_gold(gold), respell(answer)
    if gold == answer:
        return CORRECT
    gold_quantity, gold_unit = split_unit(gold)
    quantity, unit = split_unit(answer)
    if gold_unit and unit and gold_unit != unit:
        return failed("wrong", f"unit {unit!r}")
    gold_number, number = exact_number(gold_quantity), exact_number(quantity)
    if gold_number is not None and number is not None:
        return CORRECT if gold_number == number else failed("wrong", "another number")
    if {brackets(gold_quantity), brackets(quantity)} == {"{}", "()"}:
        return failed("wrong", "a set is not a tuple")
    if too_deep(quantity):
        return failed("unparsable", "nested too deeply")
    try:
        with time_limit(SOFT_LIMIT_S):
            return CORRECT if _equal_expressions(gold_quantity, quantity) else failed("wrong", "not equal")
    except OutOfTime:
        return failed("unparsable", f"took more than {SOFT_LIMIT_S:g} s of CPU")


@lru_cache(maxsize=4096)
def _respelled_gold(gold: str) -> str:
    return respell(gold)


def _equal_expressions(gold: str, answer: str) -> bool:
    """Equal by value in strict mode; sets and the relations that describe them are comparable."""
    import math_verify

    gold_parsed, parsed = _parse_gold(gold), _parse(answer)
    if not gold_parsed or not parsed:
        return False

    def same(left: list[Any], right: list[Any]) -> bool:
        return math_verify.verify(
            left,
            right,
            float_rounding=_DIGITS,
            numeric_precision=_DIGITS,
            strict=True,
            allow_set_relation_comp=True,
            timeout_seconds=None,
        )

    if same(gold_parsed, parsed):
        return True
    if _LONE_I.search(gold) or _LONE_I.search(answer):
        return same(_with_imaginary_unit(gold_parsed), _with_imaginary_unit(parsed))
    return False


def _is_comparable(quantity: str) -> bool:
    """Whether it parses, and its comparison with some other value ends in time."""
    try:
        with time_limit(SOFT_LIMIT_S):
            _equal_expressions(quantity, "0")
            return bool(_parse_gold(quantity))
    except OutOfTime:
        return False


def _parse(latex: str) -> list[Any]:
    """Sympy expressions of one boxed answer; empty when it is none. No fallback to bare words."""
    import math_verify

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its own alarm is off: ours is on
    return math_verify.parse(
        rf"\boxed{{{latex}}}",
        [math_verify.LatexExtractionConfig(boxed_match_priority=0)],
        fallback_mode="no_fallback",
        extraction_mode="first_match",
        parsing_timeout=0,
    )


@lru_cache(maxsize=4096)
def _parse_gold(latex: str) -> list[Any]:
    return _parse(latex)


def _with_imaginary_unit(parsed: list[Any]) -> list[Any]:
    """The parser reads `i` as a variable where it stands in a product; here it is the imaginary unit."""
    import sympy

    return [
        expression.subs({symbol: sympy.I for symbol in expression.free_symbols if str(symbol) == "i"}).doit()
        for expression in parsed
        if isinstance(expression, sympy.Basic)
    ]
