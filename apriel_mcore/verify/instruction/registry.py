"""Which constraints exist, and what arguments does each take?

A constraint is a function of the answer and of keyword-only arguments whose annotations are the schema
that a problem's `args` are checked against:

    @constraint("length_constraints:number_words")
    def number_words(answer: str, *, num_words: Count, relation: Relation) -> bool: ...

Kinds and arguments carry the names of the IFEval data (arXiv 2311.07911).
"""

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple, get_type_hints

import msgspec
from msgspec import Meta

from apriel_mcore.errors import InputError

# A bound of 0 and an empty word are refused: such a constraint is met by every answer.
Count = Annotated[int, Meta(ge=1)]
Phrase = Annotated[str, Meta(pattern=r"\S")]
Phrases = Annotated[list[Phrase], Meta(min_length=1)]
Letter = Annotated[str, Meta(min_length=1, max_length=1)]
Relation = Literal["at least", "less than"]

type Check = Callable[..., bool]

_WORD = re.compile(r"\w+")
_UNSUPPORTED = {"language:response_language": "it needs a language detector, which is not installed"}


class Kind(NamedTuple):
    """A constraint and the record of its arguments."""

    check: Check
    args: type[msgspec.Struct]


KINDS: dict[str, Kind] = {}


def constraint(kind: str) -> Callable[[Check], Check]:
    """Registers a function under its kind; its keyword-only parameters become the arguments' schema."""

    def register(check: Check) -> Check:
        hints = get_type_hints(check, include_extras=True)
        fields = [(name, hint) for name, hint in hints.items() if name not in ("answer", "return")]
        record = msgspec.defstruct(check.__name__, fields, frozen=True, forbid_unknown_fields=True)
        KINDS[kind] = Kind(check, record)
        return check

    return register


def bind(kind: str, args: dict[str, Any]) -> Callable[[str], bool]:
    """The constraint as a function of the answer alone; InputError on an unknown kind or wrong arguments."""
    if kind in _UNSUPPORTED:
        raise InputError(f"constraint {kind!r} is not supported: {_UNSUPPORTED[kind]}")
    if kind not in KINDS:
        raise InputError(f"unknown constraint {kind!r}; known are {', '.join(sorted(KINDS))}")
    check, record = KINDS[kind]
    try:
        values = msgspec.structs.asdict(msgspec.convert(args, record))
    except msgspec.ValidationError as error:
        raise InputError(f"constraint {kind!r}: {error}") from error
    return lambda answer: check(answer, **values)


def holds(count: int, relation: Relation, bound: int) -> bool:
    """`count` against `bound`, in the two relations that prompts use."""
    return count >= bound if relation == "at least" else count < bound


def words(text: str) -> list[str]:
    """Runs of letters, digits and underscores; "don't" is two."""
    return _WORD.findall(text)


def has_word(text: str) -> bool:
    """Whether there is any."""
    return _WORD.search(text) is not None
