"""What can one device and the wires around it do, and who says so?

    profiles/NAME.toml or a file like it --load--> Profile

Every section names its source and whether it was measured on devices of that kind running this program; what
was not is marked wherever its numbers are printed.
"""

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from apriel_mcore.errors import InputError

Positive = Annotated[float, Meta(gt=0)]
NonNegative = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(gt=0, le=1)]
Provenance = Literal["measured", "published", "datasheet", "assumed"]
"""Measured here; fitted to published rows; a vendor's peak; nobody's measurement."""


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    provenance: Provenance
    source: str


class Device(_Section, frozen=True, kw_only=True):
    """Peaks of one device, and its price."""

    memory_gb: Positive
    bf16_tflops: Positive
    fp8_tflops: Positive
    fp32_tflops: Positive
    """Of the float32 head: plain CUDA cores, no TF32."""
    memory_gb_s: Positive
    usd_per_hour: NonNegative


class Wires(_Section, frozen=True, kw_only=True):
    """Bandwidth of one device in one direction, in GB/s, as collectives reach it."""

    devices_per_node: int
    node_gb_s: Positive
    network_gb_s: Positive
    latency_us: NonNegative
    """Of one small collective inside a node."""


class Efficiency(_Section, frozen=True, kw_only=True):
    """Shares of the peaks that the trainer reaches."""

    gemm_bf16: Share
    gemm_fp8: Share
    tensor_exposed: NonNegative
    """Share of tensor-parallel traffic that no computation hides."""
    attention_forward: Share
    attention_backward: Share
    memory: Share
    gemm_fp32: Share


class Serving(_Section, frozen=True, kw_only=True):
    """Shares of the peaks that a server's step reaches: a roofline with additive parts."""

    memory: Share
    gemm: Share
    step_overhead_ms: NonNegative
    """Scheduler, sampling, launches."""


class Publish(_Section, frozen=True, kw_only=True):
    """Weights from trainer to servers."""

    gb_s: Positive
    """Through one sending device or process."""
    fixed_s: NonNegative
    """Meeting, probe, receipt."""
    host_gb_s: Positive
    """From a server's host memory, where new weights arrive, into its device, while it stands still."""


class Profile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A device kind, as the planner sees it."""

    name: str
    device: Device
    wires: Wires
    efficiency: Efficiency
    decode: Serving
    publish: Publish

    @property
    def uncalibrated(self) -> list[str]:
        """Sections that no measurement of this program stands behind, with what does."""
        names = ("device", "wires", "efficiency", "decode", "publish")
        return [
            f"{name}: {section.provenance}, {section.source}"
            for name in names
            if (section := self._section(name)).provenance != "measured"
        ]

    def _section(self, name: str) -> _Section:
        sections: dict[str, _Section] = {
            "device": self.device,
            "wires": self.wires,
            "efficiency": self.efficiency,
            "decode": self.decode,
            "publish": self.publish,
        }
        return sections[name]


def load(name: str) -> Profile:
    """A profile that ships (`h100`), or a TOML file; InputError with the file and what is wrong."""
    shipped = files("apriel_mcore.planning") / "profiles" / f"{name}.toml"
    path = Path(name)
    if shipped.is_file():
        text, where = shipped.read_text(encoding="utf-8"), f"profile {name}"
    elif path.is_file():
        text, where = path.read_text(encoding="utf-8"), str(path)
    else:
        raise InputError(
            f"--profile {name}: neither a profile that ships nor a file; give h100, or a "
            "TOML file like profiles/h100.toml"
        )
    try:
        tree: dict[str, Any] = tomllib.loads(text)
        return msgspec.convert(tree, Profile)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise InputError(f"{where}: {error}; see apriel_mcore/planning/profiles/h100.toml") from None
