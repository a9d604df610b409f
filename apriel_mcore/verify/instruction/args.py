"""What arguments may a constraint take? Types that msgspec checks, named in the checks' annotations."""

from typing import Annotated, Literal

from msgspec import Meta

# A bound of 0 and an empty word are refused: such a constraint is met by every answer.
Count = Annotated[int, Meta(ge=1)]
Index = Annotated[int, Meta(ge=0)]
Phrase = Annotated[str, Meta(pattern=r"\S")]
Phrases = Annotated[list[Phrase], Meta(min_length=1)]
Letter = Annotated[str, Meta(min_length=1, max_length=1)]
Relation = Literal["at least", "less than"]


def holds(count: int, relation: Relation, bound: int) -> bool:
    """`count` against `bound`, in the two relations that prompts use."""
    return count >= bound if relation == "at least" else count < bound


def first_phrase(given: Phrase | Phrases) -> str:
    """The phrase; some rows of the training set wrap theirs into a list."""
    return (given if isinstance(given, str) else given[0]).strip()
