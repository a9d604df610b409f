"""How does model-written Python run without harming the host? In a process tree of its own, with limits.

    request (memfd) -> launcher (bwrap) -> runner (sandbox_child.py) -> solution
    reply lines, stdout  <--------------------'                          killed with all its children

`open_sandbox` proves once that the named backend works here and resists; it raises where it does not, and
there is no weaker backend it would turn to.
"""

import contextlib
import functools
import json
import math
import os
import secrets
import selectors
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from apriel_mcore.errors import InputError, VerifierError
from apriel_mcore.verify import sandbox_probe
from apriel_mcore.verify.sandbox_launch import Backend, Launcher, launchers

_HERE = Path(__file__).parent
_CHUNK = 1 << 16

Ending = Literal["exit", "cpu", "wall", "flood"]


class SandboxLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What one run, which holds all tests of a problem, may use; and the backend it runs on.

    The worst case for memory is `processes * memory_mib`: the limit is per process.
    """

    backend: Backend = "bwrap"
    cpu_s: float = 3.0
    """Per process, rounded up to whole seconds; a program's tests are a process each."""
    wall_s: float = 6.0
    """For the whole run, with its start."""
    memory_mib: int = 512
    """Address space of a process."""
    file_bytes: int = 1 << 20
    """Size of a file, a program's output included."""
    open_files: int = 64
    processes: int = 16
    """In the sandbox, threads included. The rlimit backend does not limit them."""
    output_bytes: int = 64 << 10
    """Raw output that reaches the parent; more ends the run."""
    reply_bytes: int = 1 << 20
    """All reply lines together; more ends the run."""
    source_chars: int = 64 << 10
    """A longer answer is not run."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One run: a solution and the inputs of its tests, _N. Expected values have no place here."""

    source: str
    entry_point: str
    """Function or Class.method; empty for a program that reads stdin."""
    inputs_N: Sequence[Any]
    """Lists of argument trees (values.py), or texts for stdin."""


class Ran(msgspec.Struct, frozen=True, kw_only=True):
    """What came out of a run: the reply objects that carry its nonce, and how it ended."""

    replies: tuple[dict[str, Any], ...]
    ending: Ending


class _Streams(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes read from a run until its end, before they are believed."""

    replies: bytes
    output: bytes
    ending: Ending


class Sandbox:
    """A launcher that starts one process tree per run and leaves nothing of it alive."""

    def __init__(self, launcher: Launcher) -> None:
        self.launcher = launcher
        self._runner = (_HERE / "sandbox_child.py").read_text(encoding="utf-8")
        self._codec = (_HERE / "values.py").read_text(encoding="utf-8")

    def run(self, job: Job, limits: SandboxLimits) -> Ran:
        """Run all tests of a job; VerifierError when the sandbox itself failed before the solution began."""
        nonce = secrets.token_hex(8)
        with contextlib.ExitStack() as files:
            request_fd = _memory_file(self._request(job, limits, nonce))
            files.callback(os.close, request_fd)
            reply_fd, reply_end = os.pipe()
            files.callback(os.close, reply_fd)
            try:
                child = self._start(request_fd, reply_end)
            finally:
                os.close(reply_end)
            with child:
                streams = _supervise(child, reply_fd, limits)
        replies = tuple(_believable(streams.replies, nonce))
        if not any(reply.get("ready") is True for reply in replies):
            said = streams.output.decode(errors="replace").strip()[-500:]
            raise VerifierError(
                f"sandbox {self.launcher.backend}: the runner did not start ({streams.ending}): {said}"
            )
        return Ran(replies=replies, ending=streams.ending)

    def _request(self, job: Job, limits: SandboxLimits, nonce: str) -> bytes:
        lowered = {
            "processes": limits.processes if self.launcher.own_pids else 0,
            "open_files": limits.open_files,
            "file_bytes": limits.file_bytes,
            "memory_bytes": limits.memory_mib << 20,
            "cpu_s": math.ceil(limits.cpu_s),
        }
        request = {"nonce": nonce, "limits": lowered, "codec": self._codec, **msgspec.structs.asdict(job)}
        return json.dumps(request).encode()

    def _start(self, request_fd: int, reply_end: int) -> subprocess.Popen[bytes]:
        launcher = self.launcher
        python = (launcher.python, "-I", "-S", "-c", self._runner, str(request_fd), str(reply_end))
        try:
            return subprocess.Popen(
                (*launcher.prefix, *python),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(request_fd, reply_end),
                # bwrap stays readable as /proc/1 inside, environment included.
                env={},
                cwd="/",
                start_new_session=True,
                user=launcher.uid,
                group=launcher.uid,
                extra_groups=None if launcher.uid is None else (),
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise VerifierError(f"sandbox {launcher.backend}: cannot start {python[0]}: {error}") from error


def _memory_file(content: bytes) -> int:
    """A descriptor of an unnamed file; unlike a pipe it never blocks the writer."""
    fd = os.memfd_create("request")
    with open(fd, "wb", closefd=False) as stream:
        stream.write(content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _supervise(child: subprocess.Popen[bytes], reply_fd: int, limits: SandboxLimits) -> _Streams:
    """Read until the launcher exits, a cap is passed or the time is up; then kill the whole group."""
    assert child.stdout is not None
    replies, output = bytearray(), bytearray()
    caps = {reply_fd: (replies, limits.reply_bytes), child.stdout.fileno(): (output, limits.output_bytes)}
    pid_fd = os.pidfd_open(child.pid)
    try:
        ending = _read(caps, pid_fd, deadline=time.monotonic() + limits.wall_s)
    finally:
        os.close(pid_fd)
        # Before the wait: the id of an unreaped group leader cannot be taken by a stranger.
        os.killpg(child.pid, signal.SIGKILL)
        status = child.wait()
    if ending == "exit" and _is_cpu_limit(status):
        ending = "cpu"
    return _Streams(replies=bytes(replies), output=bytes(output), ending=ending)


def _read(caps: dict[int, tuple[bytearray, int]], pid_fd: int, *, deadline: float) -> Ending:
    """Fill the buffers; `caps` maps a descriptor to its buffer and the bytes it may hold."""
    with selectors.DefaultSelector() as selector:
        selector.register(pid_fd, selectors.EVENT_READ)
        for fd in caps:
            os.set_blocking(fd, False)
            selector.register(fd, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0:
            ready = [key.fd for key, _ in selector.select(left)]
            for fd in caps if pid_fd in ready else ready:
                buffer, cap = caps[fd]
                if _drain(fd, buffer, cap) and fd in selector.get_map():
                    selector.unregister(fd)
                if len(buffer) > cap:
                    return "flood"
            if pid_fd in ready:
                return "exit"
    return "wall"


def _drain(fd: int, buffer: bytearray, cap: int) -> bool:
    """Read what is there, to just over the cap; True at the end of the stream."""
    while len(buffer) <= cap:
        try:
            chunk = os.read(fd, _CHUNK)
        except BlockingIOError:
            return False
        if not chunk:
            return True
        buffer += chunk
    return False


def _is_cpu_limit(status: int) -> bool:
    """bwrap reports a signal as 128 + number, Popen as its negative; SIGKILL is the hard limit's."""
    return status in {code for number in (signal.SIGXCPU, signal.SIGKILL) for code in (128 + number, -number)}


def _believable(lines: bytes, nonce: str) -> list[dict[str, Any]]:
    """Whole reply lines of this run. The nonce only keeps noise apart: the solution could read and use it."""
    found: list[dict[str, Any]] = []
    for line in lines.split(b"\n")[:-1]:
        try:
            reply = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(reply, dict) and reply.get("nonce") == nonce:
            found.append(reply)
    return found


@functools.cache
def open_sandbox(backend: Backend) -> Sandbox:
    """The sandbox of a backend after it has proved itself; once for each process.

    InputError with what failed and the remedy, when no launcher of this backend works on this machine.
    """
    failures: list[str] = []
    for launcher in launchers(backend):
        sandbox = Sandbox(launcher)
        try:
            breaches = probe(sandbox)
        except VerifierError as error:
            failures.append(str(error))
            continue
        if not breaches:
            return sandbox
        failures.append(f"{launcher.prefix[:1] or launcher.python}: not contained: {', '.join(breaches)}")
    raise InputError(
        f'verify.sandbox = "{backend}" does not work on this machine: {"; ".join(dict.fromkeys(failures))}. '
        f"{sandbox_probe.REMEDIES[backend]}"
    )


def probe(sandbox: Sandbox) -> list[str]:
    """Names of the probe's attacks that succeeded; VerifierError when not even a good program runs."""
    limits = SandboxLimits(backend=sandbox.launcher.backend, wall_s=20.0)
    with sandbox_probe.targets() as target_trees:
        job = Job(source=sandbox_probe.SOURCE, entry_point="breaches", inputs_N=[target_trees])
        ran = sandbox.run(job, limits)
    for reply in ran.replies:
        if reply.get("test") == 0 and isinstance(reply.get("value"), dict):
            breaches = reply["value"]["list"]
            return [name for name in breaches if name in sandbox_probe.MUST_FAIL[sandbox.launcher.backend]]
    raise VerifierError(
        f"sandbox {sandbox.launcher.backend}: the probe ended without an answer: {ran.replies}"
    )
