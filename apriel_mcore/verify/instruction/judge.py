"""How many of a prompt's constraints does the answer keep?"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from apriel_mcore.types import Verdict
from apriel_mcore.verify.alarm import OutOfTime, time_limit
from apriel_mcore.verify.answer import final_answer
from apriel_mcore.verify.instruction.language import language_of
from apriel_mcore.verify.instruction.table import bind
from apriel_mcore.verify.instruction.tokens import has_word
from apriel_mcore.verify.outcome import NO_ANSWER, failed, read_reference, share

MAX_CHARS = 100_000
SOFT_LIMIT_S = 1.0


class Instruction(msgspec.Struct, frozen=True):
    """One constraint."""

    kind: str
    args: dict[str, Any] = {}


class Reference(msgspec.Struct, frozen=True):
    """Constraints of a problem."""

    instructions: Annotated[list[Instruction], Meta(min_length=1)]


def verify(reference: dict[str, Any], text: str) -> Verdict:
    """Score = constraints kept / all. InputError on an unknown kind or wrong arguments. Main thread only.

    An answer without a single word is no answer: it would keep every constraint that only forbids.
    """
    instructions = read_reference(reference, Reference).instructions
    checks = [bind(instruction.kind, instruction.args) for instruction in instructions]
    answer = final_answer(text)
    if not has_word(answer):
        return NO_ANSWER
    if len(answer) > MAX_CHARS:
        return failed("unparsable", f"longer than {MAX_CHARS} characters")
    try:
        with time_limit(SOFT_LIMIT_S):
            kept = [check(answer) for check in checks]
    except OutOfTime:
        return failed("unparsable", f"took more than {SOFT_LIMIT_S:g} s of CPU")
    broken = [
        instruction.kind for instruction, is_kept in zip(instructions, kept, strict=True) if not is_kept
    ]
    return share(sum(kept), len(kept), f"broken: {', '.join(broken)}")


def warm_up() -> None:
    """Loads the model of languages: longer than most answers may take."""
    language_of("a word")


def self_check(reference: dict[str, Any]) -> None:
    """InputError unless every constraint is known and has the arguments it takes.

    Each is asked once, so that what it needs is loaded, or found missing, before the run.
    """
    for instruction in read_reference(reference, Reference).instructions:
        bind(instruction.kind, instruction.args)("a word")
