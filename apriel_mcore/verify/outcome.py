"""How a judge reads its reference and words its verdict: the vocabulary all judges share."""

from typing import Any, Literal

import msgspec

from apriel_mcore.errors import InputError
from apriel_mcore.types import Verdict

CORRECT = Verdict(score=1.0, success=True, status="correct")
NO_ANSWER = Verdict(score=0.0, success=False, status="no_answer")


def read_reference[T](reference: dict[str, Any], record: type[T]) -> T:
    """The reference as a checked record; InputError names the field that is missing or wrong."""
    try:
        return msgspec.convert(reference, record)
    except msgspec.ValidationError as error:
        raise InputError(f"reference: {error}") from error


def failed(status: Literal["wrong", "unparsable"], detail: str) -> Verdict:
    """No credit, and why."""
    return Verdict(score=0.0, success=False, status=status, detail=sendable(detail))


def share(met: int, total: int, detail: str) -> Verdict:
    """Credit met/total: correct when all are met, partial when some are, wrong when none is."""
    if met == total:
        return CORRECT
    if met == 0:
        return failed("wrong", detail)
    return Verdict(score=met / total, success=False, status="partial", detail=sendable(detail))


def sendable(text: str) -> str:
    """The text with lone surrogates spelled out: JSON of a model can say them, and UTF-8 cannot."""
    return text.encode("utf-8", "backslashreplace").decode()
