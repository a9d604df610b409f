"""From measured rates to a profile that `apriel plan --profile` reads.

    Rates + a profile that ships --> measured rates for peaks, shares of them, and what is still assumed

The shares that ship (`efficiency`, `decode`) are of a vendor's peaks. Of these a large product or copy is
taken to reach three quarters, so shares of measured rates are a third higher, and 1 at most.
"""

from typing import Any

import msgspec
import tomli_w

from apriel_mcore.planning.hardware import Device, Profile, Wires
from apriel_mcore.planning.rates import Rates

_REACHED = 0.75
_TRAINER_SHARES = ("gemm_bf16", "gemm_fp8", "attention_forward", "attention_backward", "memory", "gemm_fp32")


def profile_of(rates: Rates, base: Profile) -> Profile:
    """Each section says which of its numbers were measured."""
    shares = f"shares of profile {base.name}, of measured rates instead of peaks (over {_REACHED})"
    return Profile(
        name=rates.name,
        device=_device(rates, base.device),
        wires=_wires(rates, base),
        efficiency=msgspec.structs.replace(
            base.efficiency,
            provenance="assumed",
            source=shares,
            **_over_reached(base.efficiency, _TRAINER_SHARES),
        ),
        decode=msgspec.structs.replace(
            base.decode, provenance="assumed", source=shares, **_over_reached(base.decode, ("memory", "gemm"))
        ),
        publish=msgspec.structs.replace(
            base.publish,
            provenance="assumed",
            source=f"host_gb_s measured; the rest: profile {base.name}",
            host_gb_s=rates.host_gb_s,
        ),
    )


def toml(profile: Profile) -> str:
    """As `hardware.load` reads it."""
    head = "# By `apriel calibrate machine`. Yours to set: usd_per_hour, and network_gb_s between nodes.\n"
    return head + tomli_w.dumps(msgspec.to_builtins(profile))


def lines(rates: Rates) -> list[str]:
    """A Markdown table."""
    named = msgspec.structs.asdict(rates)
    rows = [f"| {name} | {_cell(value)} |" for name, value in named.items()]
    return ["| measured | |", "|---|---|", *rows]


def _cell(value: Any) -> str:
    if value is None:
        return "not measured: no such device or precision here"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _device(rates: Rates, base: Device) -> Device:
    missing = "" if rates.fp8_tflops else "; fp8_tflops: it has no FP8, so bf16's"
    return Device(
        provenance="measured",
        source=f"apriel calibrate machine on {rates.name}{missing}; price: not this machine's",
        memory_gb=rates.memory_gb,
        bf16_tflops=rates.bf16_tflops,
        fp8_tflops=rates.fp8_tflops or rates.bf16_tflops,
        fp32_tflops=rates.fp32_tflops,
        memory_gb_s=rates.memory_gb_s,
        usd_per_hour=base.usd_per_hour,
    )


def _wires(rates: Rates, base: Profile) -> Wires:
    if rates.all_reduce_gb_s is None or rates.latency_us is None:
        source = f"one device, nothing to measure: profile {base.name}"
        return msgspec.structs.replace(base.wires, provenance="assumed", source=source)
    return Wires(
        provenance="assumed",
        source=f"node_gb_s, latency_us: measured all-reduce; network_gb_s: profile {base.name}",
        devices_per_node=rates.num_devices,
        node_gb_s=rates.all_reduce_gb_s,
        network_gb_s=base.wires.network_gb_s,
        latency_us=rates.latency_us,
    )


def _over_reached(section: Any, names: tuple[str, ...]) -> dict[str, float]:
    return {name: min(1.0, getattr(section, name) / _REACHED) for name in names}
