"""When is waiting too long?"""

from typing import Annotated, Literal

from msgspec import Meta

from apriel_mcore.config.schema.fields import PositiveFloat, Section


class Watch(Section, frozen=True, kw_only=True):
    """Alarms that name the process that a run waits for."""

    stall_after_s: PositiveFloat | Literal["auto", "off"] = "auto"
    """How long a phase of the loop may take; auto: `stall_factor` times the median of its last ones, and
    never below a minute."""
    stall_factor: Annotated[float, Meta(gt=1)] = 8.0
    slow_server: Annotated[float, Meta(gt=1)] = 2.0
    """A server that takes this many times as long a token as the fleet is a straggler."""
    beat_s: PositiveFloat = 5.0
    """Seconds between two signs of life of each trainer rank."""
