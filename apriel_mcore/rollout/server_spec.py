"""What is one vLLM server told? Its command line and its environment.

vLLM is a command line here, never an import.
"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from apriel_mcore.bridge.scales import BLOCK
from apriel_mcore.config.schema import ArenaPublish, FilesPublish, LocalServers, RunConfig, StreamPublish
from apriel_mcore.config.schema.publish import Weights
from apriel_mcore.errors import InputError

Device = Literal["cpu", "cuda"]
Transport = Literal["arena", "files", "stream"]

SPARE_SEQS = 1
"""A server admits one request more than the pool generates with, so that a probe never queues."""

_INSIDE = "apriel_mcore.rollout.inside_vllm"
_RECEIVERS: dict[Transport, tuple[str, str]] = {
    "arena": ("apriel_arena", f"{_INSIDE}.arena.ArenaReceiver"),
    "files": ("apriel_files", f"{_INSIDE}.files.FilesReceiver"),
    "stream": ("apriel_stream", f"{_INSIDE}.stream.StreamReceiver"),
}
"""Weight-transfer backend and worker extension of each transport."""
_ENVIRONMENT = {
    "VLLM_SERVER_DEV_MODE": "1",  # opens the weight and cache routes, which only the gate guards
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
}

# A block is the unit of prefix sharing: the CPU's default of 128 tokens is longer than most short prompts.
_DEVICE_FLAGS: dict[Device, list[str]] = {"cpu": ["--enforce-eager", "--block-size", "32"], "cuda": []}


class Seat(msgspec.Struct, frozen=True, kw_only=True):
    """The place of a server among those of its host."""

    number: int = 0
    of: int = 1
    first_device: int = 0
    """GPUs before this one belong to others."""


class ServerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What distinguishes one server of a run from another."""

    settings: LocalServers
    model: Path
    """Hugging Face folder; the checkpoint that published weights are checked against."""
    device: Device
    index: int
    """0 to settings.count - 1."""
    seat: Seat = Seat()
    seed: int
    """Of the sampler; servers and attempts that shared one would draw the same answers."""
    transport: Transport
    """How weights come."""
    weights: Weights
    """What it computes with."""
    copies: Path
    """In-memory folder for what was received by `stream`; outlives an attempt."""


def server_command(spec: ServerSpec, *, port: int, seed: int) -> list[str]:
    """The vLLM command line of a server."""
    settings = spec.settings
    backend, receiver = _RECEIVERS[spec.transport]
    flags = {
        "--host": settings.host,
        "--port": port,
        "--model": spec.model,
        "--served-model-name": "policy",
        "--dtype": settings.dtype,
        "--hf-overrides": json.dumps(_model_overrides(spec)),
        # Weights that vLLM could not read as they are, and that are replaced before the first request.
        **({} if spec.weights == "as_trained" else {"--load-format": "dummy"}),
        "--max-model-len": settings.max_model_len,
        "--max-num-seqs": settings.max_num_seqs + SPARE_SEQS,
        "--tensor-parallel-size": settings.tensor,
        **_kv_cache(settings),
        # Behaviour log-probs must be those of the distribution sampled from, temperature included.
        "--logprobs-mode": "processed_logprobs",
        "--seed": seed,
        "--weight-transfer-config": f'{{"backend": "{backend}"}}',
        "--worker-extension-cls": receiver,
        "--middleware": f"{_INSIDE}.gate.Gate",
    }
    # The `vllm` command looks for a distribution of that name, which the CPU wheel does not have.
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--disable-uvicorn-access-log"]
    command += [str(word) for flag in flags.items() for word in flag]
    return command + _DEVICE_FLAGS[spec.device]


def _model_overrides(spec: ServerSpec) -> dict[str, object]:
    """What config.json does not say."""
    head: dict[str, object] = {"head_dtype": spec.settings.head_dtype}
    fp8: dict[str, object] = {"quant_method": "fp8", "activation_scheme": "dynamic"}
    match spec.weights:
        case "as_trained":
            return head
        case "fp8_block":
            return head | {"quantization_config": fp8 | {"weight_block_size": [BLOCK, BLOCK]}}
        case "fp8_tensor":
            return head | {"quantization_config": fp8}


def _kv_cache(settings: LocalServers) -> dict[str, object]:
    if settings.kv_cache_gib == "auto":
        return {"--gpu-memory-utilization": settings.gpu_memory_utilization}
    return {"--kv-cache-memory-bytes": int(settings.kv_cache_gib * 2**30)}


def server_environment(spec: ServerSpec, *, cores: Sequence[int]) -> dict[str, str]:
    """What a server's environment adds to ours; `cores` are those this process may use."""
    environment = _ENVIRONMENT | {"APRIEL_LOCAL_COPY": str(spec.copies)}
    tensor = spec.settings.tensor
    if spec.device == "cuda":
        return environment | {"CUDA_VISIBLE_DEVICES": _devices(spec.seat, tensor)}
    binding = thread_binding(cores, index=spec.seat.number, count=spec.seat.of, tensor=tensor)
    # Sampling has two small compiled functions: 17 s of g++ (which a laptop may lack) at the first request.
    return environment | {"VLLM_CPU_OMP_THREADS_BIND": binding, "TORCHDYNAMO_DISABLE": "1"}


def _devices(seat: Seat, tensor: int) -> str:
    """The GPUs of a server, of those that this process may use; InputError when there are too few."""
    first = seat.first_device + seat.number * tensor
    wanted = range(first, first + tensor)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return ",".join(str(device) for device in wanted)
    names = [name for name in visible.split(",") if name]
    if wanted.stop > len(names):
        raise InputError(
            f"rollout.servers: server {seat.number} of this host needs GPUs {first} to {wanted.stop - 1}, "
            f"and {len(names)} are visible (CUDA_VISIBLE_DEVICES={visible}); lower rollout.servers.count"
        )
    return ",".join(names[device] for device in wanted)


def thread_binding(cores: Sequence[int], *, index: int, count: int, tensor: int) -> str:
    """Cores of a CPU server's ranks, as vLLM writes them: ranks separated by |.

    Servers together take the first half of the cores (at least one each, shared when there are fewer),
    because the trainer of the same host computes at the same time; its threads are not bound, so the
    kernel keeps them on the other half.
    """
    half = max(1, len(cores) // 2)
    num_ranks = count * tensor
    share = max(1, half // num_ranks)
    ranks = range(index * tensor, (index + 1) * tensor)
    lists = ([cores[(rank * share + i) % half] for i in range(share)] for rank in ranks)
    return "|".join(",".join(str(core) for core in chosen) for chosen in lists)


def transport_of(config: RunConfig) -> Transport:
    """How a recipe's weights come to its servers."""
    match config.publish:
        case ArenaPublish():
            return "arena"
        case FilesPublish():
            return "files"
        case StreamPublish():
            return "stream"


def copies_of(config: RunConfig, run: str, index: int) -> Path:
    """Where a server keeps what it received; `run` tells runs on one host apart."""
    folder = config.publish.copies if isinstance(config.publish, StreamPublish) else "/dev/shm"
    return Path(folder) / f"apriel-{run}-server-{index}"
