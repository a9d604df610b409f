"""How is a sandbox's server started, given a run, and ended so that nothing is left?"""

import contextlib
import marshal
import os
import select
import selectors
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any, Literal

import msgspec

from apriel_mcore.errors import Starved, VerifierError
from apriel_mcore.verify import sandbox_filter
from apriel_mcore.verify.sandbox_launch import Launcher

_HERE = Path(__file__).parent
_MARSHAL = 2
"""A format that every Python 3 reads; what it says is ours, and nothing of a solution's comes back in it."""
_CHUNK = 1 << 16
_OUTPUT_BYTES = 1 << 16
_END_TIMEOUT_S = 1.0
START_TIMEOUT_S = 30.0
"""For a server to come up: tens of milliseconds on an idle machine, and no answer's fault."""


class End(msgspec.Struct, frozen=True, kw_only=True):
    """What the server says when a run is over."""

    ending: Literal["exit", "cpu", "wall", "flood", "killed"]
    """killed: by somebody else."""
    felt_s: float
    clean: bool
    """The server can be used again."""


def sources() -> dict[str, str]:
    """The files that run inside, as texts: the launchers' users may not be able to read ours."""
    return {"codec": source_of("values.py"), "runner": source_of("sandbox_child.py")}


def source_of(name: str) -> str:
    """The text of a file beside this one."""
    return (_HERE / name).read_text(encoding="utf-8")


class Server:
    """A running server and everything below it."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        boot = sources() | {
            "filter": sandbox_filter.program().hex(),
            "landlock": launcher.landlock,
            "private_tmp": launcher.backend == "bwrap",
        }
        boot_fd = _memory_file(marshal.dumps(boot, _MARSHAL))
        try:
            self._process = self._start(boot_fd, theirs.fileno())
        except BaseException:
            self._control.close()
            raise
        finally:
            os.close(boot_fd)
            theirs.close()
        try:
            self._wait_until_up()
        except BaseException:
            self.kill()
            raise

    def _start(self, boot_fd: int, control_fd: int) -> subprocess.Popen[bytes]:
        launcher = self._launcher
        server = source_of("sandbox_server.py")
        python = (launcher.python, "-I", "-S", "-c", server, str(boot_fd), str(control_fd))
        try:
            return subprocess.Popen(
                (*launcher.prefix, *python),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(boot_fd, control_fd),
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

    def _wait_until_up(self) -> None:
        assert self._process.stdout is not None
        out, said = self._process.stdout.fileno(), bytearray()
        _, why = _collect(self._control, out, said, cap=_OUTPUT_BYTES, wait_s=START_TIMEOUT_S)
        if why != "message":
            _drain(out, said, _OUTPUT_BYTES)
            text = said.decode(errors="replace").strip()[-500:]
            raise VerifierError(f"sandbox {self._launcher.backend}: the server did not start ({why}): {text}")

    def run(
        self, terms: dict[str, Any], job: dict[str, Any], *, reply_bytes: int, give_up_s: float
    ) -> tuple[bytes, End]:
        """(reply lines, how the run ended). The server reads the terms; only its children read the job."""
        reply_fd, reply_end = os.pipe()
        job_fd = _memory_file(marshal.dumps(job, _MARSHAL))
        try:
            try:
                socket.send_fds(self._control, [marshal.dumps(terms, _MARSHAL)], [job_fd, reply_end])
            except OSError as error:
                raise VerifierError(
                    f"sandbox {self._launcher.backend}: the server is gone: {error}"
                ) from error
            finally:
                os.close(job_fd)
                os.close(reply_end)
            replies = bytearray()
            message, why = _collect(self._control, reply_fd, replies, cap=reply_bytes, wait_s=give_up_s)
            if why == "message" and not _drain(reply_fd, replies, reply_bytes):
                why = "flood"
        finally:
            os.close(reply_fd)
        if why == "flood":
            return bytes(replies), End(ending="flood", felt_s=0.0, clean=False)
        if why == "late":
            raise Starved(f"sandbox: the host did not give the solution its time in {give_up_s:g} s")
        if why == "closed":
            raise VerifierError(f"sandbox {self._launcher.backend}: the server died in the middle of a run")
        return bytes(replies), msgspec.json.decode(message, type=End)

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        """Let it end by itself, which it does when its parent hangs up; killed if it does not."""
        self._control.close()
        if self._process.returncode is None:
            _wait_for_end(self._process.pid, _END_TIMEOUT_S)
        self.kill()

    def kill(self) -> None:
        """Nothing of it stays. Safe to repeat."""
        self._control.close()
        assert self._process.stdout is not None
        self._process.stdout.close()
        if self._process.returncode is None:
            # Before the wait: the id of an unreaped group leader cannot be taken by a stranger.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def _memory_file(content: bytes) -> int:
    """A descriptor of an unnamed file; unlike a pipe it never blocks the writer."""
    fd = os.memfd_create("job")
    with open(fd, "wb", closefd=False) as stream:
        stream.write(content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _wait_for_end(pid: int, seconds: float) -> None:
    """Of a child that has not been reaped; Popen.wait would look again and again, up to 50 ms late."""
    poll, pid_fd = select.poll(), os.pidfd_open(pid)
    poll.register(pid_fd, select.POLLIN)
    poll.poll(seconds * 1000)
    os.close(pid_fd)


_Why = Literal["message", "closed", "flood", "late"]


def _collect(
    control: socket.socket, fd: int, buffer: bytearray, *, cap: int, wait_s: float
) -> tuple[bytes, _Why]:
    """Fill the buffer from `fd` until a message comes, the server hangs up, the cap or the time is over."""
    os.set_blocking(fd, False)
    deadline = time.monotonic() + wait_s
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        selector.register(fd, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0:
            ready = [key.fd for key, _ in selector.select(left)]
            if fd in ready:
                if _drain(fd, buffer, cap):
                    selector.unregister(fd)
                if len(buffer) > cap:
                    return b"", "flood"
            if control.fileno() in ready:
                message = _receive(control)
                return message, "message" if message else "closed"
    return b"", "late"


def _receive(control: socket.socket) -> bytes:
    try:
        return control.recv(1 << 10)
    except ConnectionError:
        return b""


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
