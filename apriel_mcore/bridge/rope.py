"""Which rotary position embedding does a config.json ask for?

    rope_theta, rope_scaling (transformers before 5) or rope_parameters (since) --read--> theta, scaling

Three kinds of scaling are known; any other is refused by name. mcore/rope.py computes them.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from apriel_mcore.config.schema.fields import Positive, PositiveFloat
from apriel_mcore.errors import InputError


class Rope(msgspec.Struct, frozen=True, kw_only=True, tag_field="rope_type", forbid_unknown_fields=True):
    """A kind of scaling, under the keys and the `rope_type` that config.json uses."""


class Unscaled(Rope, frozen=True, kw_only=True, tag="default"):
    """The frequencies of arXiv 2104.09864 as they are."""


class Linear(Rope, frozen=True, kw_only=True, tag="linear"):
    """Every frequency divided by a factor (arXiv 2306.15595)."""

    factor: PositiveFloat


class Llama3(Rope, frozen=True, kw_only=True, tag="llama3"):
    """Frequencies that turn seldom within the original context divided, fast ones kept (arXiv 2407.21783)."""

    factor: PositiveFloat
    low_freq_factor: PositiveFloat
    """Fewer turns than this within the original context: divided by `factor`."""
    high_freq_factor: PositiveFloat
    """More turns than this: kept. In between: a mixture, linear in the turns."""
    original_max_position_embeddings: Positive

    def __post_init__(self) -> None:
        """ValueError, which msgspec reports with the key's place, for bounds in the wrong order."""
        if self.high_freq_factor <= self.low_freq_factor:
            raise ValueError("high_freq_factor must exceed low_freq_factor")


type RopeScaling = Unscaled | Linear | Llama3

_KINDS = ("default", "linear", "llama3")


class RopeKeys(msgspec.Struct, frozen=True, kw_only=True):
    """The four keys of config.json that speak of rotary embeddings, as transformers reads them."""

    rope_theta: PositiveFloat = 10_000.0
    rope_scaling: dict[str, Any] | None = None
    rope_parameters: dict[str, Any] | None = None
    """The newer home of both; its own `rope_theta` goes before the other."""
    partial_rotary_factor: float = 1.0

    def rope(self, *, where: str) -> tuple[float, RopeScaling]:
        """Theta and scaling; InputError, which `where` opens, for what cannot be computed exactly."""
        if self.rope_scaling and self.rope_parameters:
            raise InputError(f"{where}: rope_scaling and rope_parameters are both given; keep one of them")
        key = "rope_scaling" if self.rope_scaling else "rope_parameters"
        settings = dict(self.rope_scaling or self.rope_parameters or {})
        theta = settings.pop("rope_theta", self.rope_theta)
        partial = settings.pop("partial_rotary_factor", self.partial_rotary_factor)
        if partial != 1.0:
            raise InputError(f"{where}: not supported: partial_rotary_factor = {partial} (only 1)")
        where = f"{where}: {key}"
        return _convert(theta, PositiveFloat, where=f"{where}.rope_theta"), _scaling(settings, where=where)


def _scaling(settings: Mapping[str, Any], *, where: str) -> RopeScaling:
    """`type` is the older name of `rope_type`; files of a transition time hold both."""
    kind = settings.get("rope_type", settings.get("type", "default"))
    if kind not in _KINDS:
        raise InputError(f"{where}: not supported: rope_type = {kind!r} (only {', '.join(_KINDS)})")
    values = {name: value for name, value in settings.items() if name not in ("rope_type", "type")}
    return _convert({"rope_type": kind, **values}, RopeScaling, where=f"{where} of rope_type {kind!r}")


def _convert(value: object, kind: Any, *, where: str) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise InputError(f"{where}: {error}") from None
