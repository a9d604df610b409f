"""One vLLM server as a child process of ours: its command line, its start, its end.

    ServerProcess.start -> guard -> vLLM API server -> engine -> workers     (one log file per attempt)

vLLM is a command line here, never an import. The guard sees to it that nothing outlives us.
"""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import aiohttp
import msgspec

from apriel_mcore import secret
from apriel_mcore.bridge.scales import BLOCK
from apriel_mcore.config.schema import ArenaPublish, FilesPublish, LocalServers, RunConfig, StreamPublish
from apriel_mcore.config.schema.publish import Weights
from apriel_mcore.data.model_files import model_folder
from apriel_mcore.errors import ConfigError, InputError, PoolError

Device = Literal["cpu", "cuda"]
Transport = Literal["arena", "files", "stream"]

SPARE_SEQS = 1
"""A server admits one request more than the pool generates with, so that a probe never queues."""

_GRACE_S = 10.0
"""From SIGTERM to SIGKILL of the tree."""
_POLL_S = 0.25
_TAIL_LINES = 15

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


class ServerProcess:
    """Starts, watches and ends one server. After `stop`, or when it died, `start` begins a new attempt."""

    def __init__(self, spec: ServerSpec, logs: Path, *, token: str) -> None:
        self._spec = spec
        self.token = token
        """Without it, the server answers nothing."""
        self._logs = logs
        self._guard: subprocess.Popen[bytes] | None = None
        self.url = ""
        """http://HOST:PORT of the current attempt."""
        self.log = logs
        """Log file of the current attempt."""

    @property
    def name(self) -> str:
        """Stable over attempts: `server-0`."""
        return f"server-{self._spec.index}"

    @property
    def alive(self) -> bool:
        """The process runs; it may not serve yet."""
        return self._guard is not None and self._guard.poll() is None

    @property
    def pid(self) -> int:
        """Process id of the guard, whose only child is the API server; PoolError before `start`."""
        if self._guard is None:
            raise PoolError(f"{self.name} was never started")
        return self._guard.pid

    def start(self) -> None:
        """Begin an attempt; InputError when the port is taken."""
        settings = self._spec.settings
        port = choose_port(settings.host, settings.port + self._spec.index if settings.port else 0)
        self.url = f"http://{settings.host}:{port}"
        attempt, self.log = _next_log(self._logs, self.name)
        command = [sys.executable, "-m", "apriel_mcore.rollout.guard", str(os.getpid()), str(_GRACE_S)]
        with self.log.open("wb") as log:
            self._guard = subprocess.Popen(
                command + server_command(self._spec, port=port, seed=self._spec.seed + attempt),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ
                | server_environment(self._spec, cores=sorted(os.sched_getaffinity(0)))
                | {secret.SERVER_VARIABLE: self.token},
                start_new_session=True,  # a Ctrl-C in our terminal is ours to handle
            )

    async def wait_ready(self, timeout_s: float) -> None:
        """Until the server answers; PoolError, with the end of its log, when it dies or takes too long."""
        try:
            async with asyncio.timeout(timeout_s):
                await _until_answering(self, still_starting=lambda: self.alive)
        except TimeoutError:
            raise PoolError(
                f"{self.name} was not ready after {timeout_s:.0f} s (rollout.servers.start_timeout_s): "
                f"{self.log}\n{self._tail()}"
            ) from None
        if not self.alive:
            raise PoolError(f"{self.name} ended before it was ready: {self.log}\n{self._tail()}")

    async def stop(self) -> None:
        """End the whole tree: TERM, then KILL after a grace. Safe to call at any time."""
        if self._guard is None:
            return
        if self.alive:
            self._guard.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 2 * _GRACE_S
        while self.alive and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        guard, self._guard = self._guard, None  # once: later the number may be another process's
        try:  # what a guard that was itself killed could not see to
            os.killpg(guard.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        guard.wait()

    def forget(self) -> None:
        """No attempt will follow: remove what was kept for it."""
        shutil.rmtree(self._spec.copies, ignore_errors=True)

    def _tail(self) -> str:
        """Last lines of the log, indented."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL_LINES:]
        return "\n".join(f"    {line}" for line in lines)


class RemoteServer:
    """A server that somebody else started and watches; only its address is ours."""

    alive = True

    def __init__(self, url: str, *, token: str) -> None:
        self.url = url.rstrip("/")
        self.token = token
        self.name = self.url.removeprefix("http://")

    def start(self) -> None:
        """Somebody else's task."""

    async def wait_ready(self, timeout_s: float) -> None:
        """Until the server answers; PoolError when it takes too long."""
        try:
            async with asyncio.timeout(timeout_s):
                await _until_answering(self, still_starting=lambda: True)
        except TimeoutError:
            raise PoolError(
                f"{self.url} (rollout.servers.urls) did not answer for {timeout_s:.0f} s: is it running?"
            ) from None

    async def stop(self) -> None:
        """Somebody else's task."""

    def forget(self) -> None:
        """Somebody else's task."""


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


def choose_port(host: str, port: int) -> int:
    """`port`, or a free one for 0; InputError when it is taken or the host is not ours."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise InputError(
                f"rollout.servers.port: cannot listen on {host}:{port} ({error.strerror}); "
                "choose another port, or 0 for a free one"
            ) from None
        return int(probe.getsockname()[1])


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


def serve(config: RunConfig) -> None:
    """Run the first of a recipe's local servers until it ends or the user interrupts."""
    if not isinstance(config.rollout.servers, LocalServers):
        raise InputError('rollout.servers.kind: only "local" servers can be started')
    if config.publish.weights != "as_trained":
        raise ConfigError(
            f'publish.weights = "{config.publish.weights}": such a server has no weights until a trainer '
            "publishes them; serve the model folder with publish.weights=as_trained"
        )
    spec = ServerSpec(
        settings=config.rollout.servers,
        model=model_folder(config.model),
        device=config.train.device,
        index=0,
        seed=config.seed,
        transport=transport_of(config),
        weights=config.publish.weights,
        copies=copies_of(config, f"serve-{os.getpid()}", 0),
    )
    folder = Path("runs") / f"{config.name}-serve"
    process = ServerProcess(spec, folder / "logs", token=_serving_token(folder))
    asyncio.run(_serve(process, config.rollout.servers.start_timeout_s))


def _serving_token(folder: Path) -> str:
    """From the environment, or a new one, in a file that only this user can read."""
    if os.environ.get(secret.SERVER_VARIABLE):
        return secret.read(None, secret.SERVER_VARIABLE)
    folder.mkdir(parents=True, exist_ok=True)
    token = secret.new()
    secret.write(folder / "token", token)
    print(
        f"token: {folder / 'token'} (rollout.servers.token_file of the run that uses the server)", flush=True
    )
    return token


async def _serve(process: ServerProcess, timeout_s: float) -> None:
    process.start()
    try:
        await process.wait_ready(timeout_s)
        print(f"model `policy` on {process.url}/v1; log: {process.log}", flush=True)
        while process.alive:
            await asyncio.sleep(1.0)
    finally:
        await process.stop()
        process.forget()


async def _until_answering(
    server: ServerProcess | RemoteServer, *, still_starting: Callable[[], bool]
) -> None:
    """Poll the health route until it says 200, or until there is nobody to wait for.

    InputError when it refuses the token.
    """
    headers, timeout = {"Authorization": secret.header(server.token)}, aiohttp.ClientTimeout(total=5.0)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
        while still_starting():
            try:
                async with session.get(f"{server.url}/health") as response:
                    if response.status == 200:
                        return
                    if response.status == 401:
                        raise InputError(
                            f"{server.url} refuses the token; rollout.servers.token_file, or "
                            f"${secret.SERVER_VARIABLE}, must hold what the server started with"
                        )
            except (aiohttp.ClientError, TimeoutError):
                pass
            await asyncio.sleep(_POLL_S)


def _next_log(logs: Path, name: str) -> tuple[int, Path]:
    """Number and log file of the next attempt; earlier runs in the same folder count."""
    logs.mkdir(parents=True, exist_ok=True)
    attempt = len(list(logs.glob(f"{name}.attempt-*.log")))
    return attempt, logs / f"{name}.attempt-{attempt}.log"
