r"""Is this the same number, expression, set or interval as the gold answer?

    box --respell--> equal strings? --measure--> units, bases, brackets --> equal fractions? --> algebra.py

All of it under an alarm: the library behind algebra.py hangs on hostile input. It sees the content of the
last `\boxed{}` only, never prose. The rules are listed in docs/judges.md.
"""

import re
from fractions import Fraction
from functools import lru_cache
from typing import Any, Literal

import msgspec

from apriel_mcore.errors import InputError
from apriel_mcore.types import Verdict
from apriel_mcore.verify import algebra
from apriel_mcore.verify.alarm import OutOfTime, time_limit
from apriel_mcore.verify.answer import final_answer, last_boxed
from apriel_mcore.verify.latex import brackets, respell, same_text, too_deep
from apriel_mcore.verify.numerals import bases, exact_number
from apriel_mcore.verify.outcome import CORRECT, NO_ANSWER, failed, read_reference
from apriel_mcore.verify.units import PERCENT, Measure, measure

MAX_CHARS = 1000
SOFT_LIMIT_S = 0.8
"""Of CPU; the queue, the priority of slow workers and the answer's way there and back come on top."""
_BARE_NUMBER = re.compile(r"[+-]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?|[+-]?\.\d+")


class Reference(msgspec.Struct, frozen=True):
    """Gold of a math problem."""

    answer: str
    format: Literal["boxed", "number"] = "boxed"
    r"""boxed: the last `\boxed{}` counts; number: the whole final answer must be the number."""


def verify(reference: dict[str, Any], text: str, *, tolerance: float = 0.0) -> Verdict:
    """The verdict on one answer; binary. InputError when the reference is not a Reference.

    `tolerance` is relative, and only for numbers of which one is written with a decimal point. An answer
    that takes more than SOFT_LIMIT_S of CPU to parse or compare is unparsable.
    """
    gold = read_reference(reference, Reference)
    answer = written_answer(gold, text)
    if not answer:
        return NO_ANSWER
    if len(answer) > MAX_CHARS:
        return failed("unparsable", f"longer than {MAX_CHARS} characters")
    if gold.format == "number" and not _BARE_NUMBER.fullmatch(answer):
        return failed("unparsable", "not only a number")
    return _compare(gold.answer, answer, tolerance)


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
    quantity, _ = _measured_gold(gold.answer)
    if exact_number(quantity) is None and not _is_comparable(quantity):
        raise InputError(f"reference: answer {gold.answer!r} cannot be parsed and compared")


def warm_up() -> None:
    """Loads the library, so that the first hard answer does not pay for it."""
    algebra.warm_up()


def _compare(gold_text: str, answer_text: str, tolerance: float) -> Verdict:
    gold_spelled, answer = _respelled_gold(gold_text), respell(answer_text)
    if same_text(gold_spelled, answer):
        return CORRECT
    gold, given = measure(gold_spelled, as_said=True), measure(answer, as_said=True)
    if not gold.unit or gold.unit != given.unit:  # what the same words do to two numbers is the same
        gold, given = _measured_gold(gold_text), measure(answer)
    if gold.unit and given.unit and gold.unit != given.unit:
        return failed("wrong", f"unit {given.unit!r}")
    if bases(gold.quantity) - {10} and not bases(given.quantity):
        return failed("wrong", "without a base")
    if {brackets(gold.quantity), brackets(given.quantity)} == {"{}", "()"}:
        return failed("wrong", "a set is not a tuple")
    if too_deep(given.quantity):
        return failed("unparsable", "nested too deeply")
    try:
        with time_limit(SOFT_LIMIT_S):
            if any(_equal(left, right, tolerance) for left, right in _readings(gold, given)):
                return CORRECT
    except OutOfTime:
        return failed("unparsable", f"took more than {SOFT_LIMIT_S:g} s of CPU")
    return failed("wrong", "not equal")


@lru_cache(maxsize=4096)
def _respelled_gold(gold: str) -> str:
    return respell(gold)


@lru_cache(maxsize=4096)
def _measured_gold(gold: str) -> Measure:
    return measure(respell(gold))


def _readings(gold: Measure, given: Measure) -> list[tuple[str, str]]:
    """Pairs of quantities of which one must be equal.

    x% is x/100. A gold in percent also takes the bare x, and a whole gold x takes x%: the question asked for
    a percentage. Other units may be missing on one side.
    """
    as_written = (gold.quantity, given.quantity)
    if gold.unit == given.unit or PERCENT not in (gold.unit, given.unit):
        return [as_written]
    if gold.unit == PERCENT:
        return [as_written, (_hundredth(gold.quantity), given.quantity)]
    number = exact_number(gold.quantity)
    is_whole = number is not None and number.denominator == 1
    by_value = (gold.quantity, _hundredth(given.quantity))
    return [as_written, by_value] if is_whole else [by_value]


def _hundredth(quantity: str) -> str:
    number = exact_number(quantity)
    return rf"\frac{{{quantity}}}{{100}}" if number is None else str(number / 100)


def _equal(gold: str, answer: str, tolerance: float) -> bool:
    gold_number, number = exact_number(gold), exact_number(answer)
    if gold_number is None or number is None:
        return algebra.equal(gold, answer, tolerance=tolerance)
    if tolerance and "." in gold + answer:
        return abs(gold_number - number) <= Fraction(tolerance) * abs(gold_number)
    return gold_number == number


def _is_comparable(quantity: str) -> bool:
    """Whether it parses, and its comparison with some other value ends in time."""
    try:
        with time_limit(SOFT_LIMIT_S):
            algebra.equal(quantity, "0", tolerance=0.0)
            return algebra.is_expression(quantity)
    except OutOfTime:
        return False
