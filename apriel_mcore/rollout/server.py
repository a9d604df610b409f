"""One vLLM server as a child process of ours: its start and its end.

    ServerProcess.start -> guard -> vLLM API server -> engine -> workers     (one log file per attempt)

The guard sees to it that nothing outlives us.
"""

import asyncio
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import aiohttp

from apriel_mcore import processes, secret
from apriel_mcore.config.schema import LocalServers, RunConfig
from apriel_mcore.data.model_files import model_folder
from apriel_mcore.errors import ConfigError, InputError, PoolError
from apriel_mcore.rollout.server_spec import (
    ServerSpec,
    copies_of,
    server_command,
    server_environment,
    transport_of,
)

_GRACE_S = 10.0
"""From SIGTERM to SIGKILL of the tree."""
_POLL_S = 0.25
_TAIL_LINES = 15
_FREE_PORTS = range(20_000, 32_768)
"""Below those that Linux gives to outgoing connections: any of these could take a port in the many seconds
between our choice and vLLM's listening."""
_PORT_TRIES = 50


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


def choose_port(host: str, port: int) -> int:
    """`port`, or a free one for 0; InputError when it is taken or the host is not ours."""
    refusal = ""
    for candidate in [port] if port else random.SystemRandom().sample(_FREE_PORTS, _PORT_TRIES):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, candidate))
            except OSError as error:
                refusal = error.strerror or str(error)
            else:
                return candidate
    raise InputError(
        f"rollout.servers.port: cannot listen on {host}:{port} ({refusal}); "
        "choose another port, or 0 for a free one"
    )


def serve(config: RunConfig) -> None:
    """Run the first of a recipe's local servers until it ends or the user interrupts."""
    processes.require("vllm")
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

    InputError when it refuses the token, or sends us elsewhere.
    """
    headers, timeout = {"Authorization": secret.header(server.token)}, aiohttp.ClientTimeout(total=5.0)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
        while still_starting():
            try:
                async with session.get(f"{server.url}/health", allow_redirects=False) as response:
                    if response.status == 200:
                        return
                    if 300 <= response.status < 400:
                        raise InputError(
                            f"{server.url} sends us to {response.headers.get('Location', 'another place')}; "
                            "rollout.servers.urls must hold the address of the server itself"
                        )
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
