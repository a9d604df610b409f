"""Numbers and addresses with limits, and the base of every section."""

from sys import float_info
from typing import Annotated

import msgspec
from msgspec import Meta

Positive = Annotated[int, Meta(gt=0)]
Natural = Annotated[int, Meta(ge=0)]
PositiveFloat = Annotated[float, Meta(gt=0, le=float_info.max)]
NonNegative = Annotated[float, Meta(ge=0, le=float_info.max)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
Beta = Annotated[float, Meta(ge=0, lt=1)]
LearningRate = Annotated[float, Meta(gt=0, le=1)]
Url = Annotated[str, Meta(pattern=r"^https?://[^@?#\s]+$")]
"""Without a user, a password or a query: addresses stand in events and logs, secrets in token files."""
Origin = Annotated[str, Meta(pattern=r"^https?://[^@?#/\s]+/?$")]
"""A Url without a path: a server's, whose routes are all ours to name."""


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every section."""
