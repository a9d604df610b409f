"""How fast are this machine's devices and wires? The best of some rounds of one large operation each."""

import os
import time
from collections.abc import Callable
from typing import Literal

import msgspec
import torch

from apriel_mcore.errors import InputError

_ROUNDS = 5
_SIDE = {"cuda": 8192, "cpu": 1024}
"""Of the square matrices that are multiplied."""
_COPIED_BYTES = {"cuda": 2**30, "cpu": 2**28}
_SMALL_BYTES = 2**12


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """What one device reached; None: it cannot, or there is no other device."""

    kind: Literal["cuda", "cpu"]
    name: str
    num_devices: int
    memory_gb: float
    bf16_tflops: float
    fp8_tflops: float | None
    fp32_tflops: float
    memory_gb_s: float
    """Read and written by a copy within the device."""
    host_gb_s: float
    """From plain host memory into the device."""
    all_reduce_gb_s: float | None
    """Bytes that a device sends and receives, a second."""
    latency_us: float | None
    """Of a small all-reduce."""


def measure(kind: Literal["cuda", "cpu"]) -> Rates:
    """InputError without such a device."""
    if kind == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch sees no CUDA device here; run this on a GPU node, or give cpu")
    device = torch.device(kind, 0) if kind == "cuda" else torch.device("cpu")
    count = torch.cuda.device_count() if kind == "cuda" else 1
    sizes = (_COPIED_BYTES[kind], _SMALL_BYTES) if count > 1 else ()
    reduced = [_all_reduce_s(size, count) for size in sizes]
    return Rates(
        kind=kind,
        name=torch.cuda.get_device_name(device) if kind == "cuda" else f"cpu, {os.cpu_count()} cores",
        num_devices=count,
        memory_gb=_memory_bytes(device) / 1e9,
        bf16_tflops=_product_tflops(device, torch.bfloat16),
        fp8_tflops=_fp8_tflops(device) if kind == "cuda" else None,
        fp32_tflops=_product_tflops(device, torch.float32),
        memory_gb_s=_copy_gb_s(device, device, passes=2),
        host_gb_s=_copy_gb_s(torch.device("cpu"), device, passes=1),
        all_reduce_gb_s=2 * (count - 1) / count * _COPIED_BYTES[kind] / reduced[0] / 1e9 if reduced else None,
        latency_us=reduced[1] * 1e6 if reduced else None,
    )


def _memory_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _seconds(work: Callable[[], object], devices: list[torch.device]) -> float:
    """The shortest of some rounds; the first, which is cold, does not count."""
    found: list[float] = []
    for _ in range(_ROUNDS + 1):
        _wait(devices)
        start = time.perf_counter()
        work()
        _wait(devices)
        found.append(time.perf_counter() - start)
    return min(found[1:])


def _wait(devices: list[torch.device]) -> None:
    for device in devices:
        if device.type == "cuda":
            torch.cuda.synchronize(device)


def _product_tflops(device: torch.device, dtype: torch.dtype) -> float:
    """float32 without TF32, as the trainer's head."""
    side = _SIDE[device.type]
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        return 2 * side**3 / _seconds(lambda: left @ right, [device]) / 1e12
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def _fp8_tflops(device: torch.device) -> float | None:
    """One scale a tensor; None before Ada and Hopper."""
    if torch.cuda.get_device_capability(device) < (8, 9):
        return None
    side = _SIDE[device.type]
    left, right = (torch.randn(side, side, device=device).to(torch.float8_e4m3fn) for _ in range(2))
    scale = torch.ones((), device=device)

    product = torch.ops.aten._scaled_mm

    def work() -> object:
        return product(left, right.T, scale, scale, out_dtype=torch.bfloat16)

    return 2 * side**3 / _seconds(work, [device]) / 1e12


def _copy_gb_s(source: torch.device, target: torch.device, *, passes: int) -> float:
    """`passes`: how often a byte goes over the memory or the wire in question."""
    size = _COPIED_BYTES[target.type]
    begin, end = (torch.ones(size, dtype=torch.uint8, device=place) for place in (source, target))
    return passes * size / _seconds(lambda: end.copy_(begin), [target]) / 1e9


def _all_reduce_s(size: int, count: int) -> float:
    """Of `size` bytes on each of `count` CUDA devices, over NCCL."""
    from torch.cuda import nccl

    devices = [torch.device("cuda", number) for number in range(count)]
    parts = [torch.ones(size // 4, device=device) for device in devices]
    return _seconds(lambda: nccl.all_reduce(parts), devices)
