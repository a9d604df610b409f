"""Stands between us and a rollout server, so that no process outlives either of them.

    us  <--pidfd--  guard (subreaper)  <--pidfd--  API server -> engine -> workers

    python -m apriel_mcore.rollout.guard OUR_PID GRACE_S COMMAND...

The guard ends the whole tree when we are gone (however we went, SIGKILL included), when it is told to
by SIGTERM, and when the API server itself ends: an API server killed by force leaves its engine and
workers to the guard, who, as their subreaper, still finds every one of them. If the guard is killed
too, the kernel kills the API server (PR_SET_PDEATHSIG) and vLLM's own death pipes do the rest.

Standard library only: this process must start at once and stay small.
"""

import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
_RESOURCE_TRACKER = b"multiprocessing.resource_tracker"


def main(arguments: list[str]) -> int:
    """Run the command until it, its parent or a SIGTERM ends it; its exit code, 128 + n for signal n."""
    parent, grace_s, command = int(arguments[0]), float(arguments[1]), arguments[2:]
    parent_gone = os.pidfd_open(parent)
    if os.getppid() != parent:
        return 1
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    asked_to_stop, wake = os.pipe()
    signal.signal(signal.SIGTERM, lambda _signum, _frame: os.write(wake, b"."))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is our parent's to handle
    scratch = tempfile.mkdtemp(prefix="apriel-server-")
    guard = os.getpid()
    server = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": scratch},
        preexec_fn=lambda: _die_with(guard),  # single-threaded here, so this is safe
    )
    try:
        ended = os.pidfd_open(server.pid)
        ready, _, _ = select.select([parent_gone, asked_to_stop, ended], [], [])
        if ended not in ready:
            server.terminate()
            select.select([ended], [], [], grace_s)
        return _exit_code(server)
    finally:
        _end_tree()
        shutil.rmtree(scratch, ignore_errors=True)


def _exit_code(server: subprocess.Popen[bytes]) -> int:
    code = server.poll()
    if code is None:
        return 128 + signal.SIGKILL
    return code if code >= 0 else 128 - code


def _end_tree() -> None:
    """Kill every descendant, then let the resource trackers unlink what the dead left in shared memory."""
    while pids := [pid for pid in _children(os.getpid()) if not _is_resource_tracker(pid)]:
        for pid in pids:
            for descendant in [*_descendants(pid), pid]:
                if not _is_resource_tracker(descendant):
                    _kill(descendant)
        _reap()
    deadline = time.monotonic() + 5.0
    while _children(os.getpid()) and time.monotonic() < deadline:
        _reap()
        time.sleep(0.02)
    for pid in _children(os.getpid()):
        _kill(pid)


def _descendants(pid: int) -> Iterator[int]:
    for child in _children(pid):
        yield child
        yield from _descendants(child)


def _children(pid: int) -> list[int]:
    """Child processes of every thread of a process; none when it is gone."""
    found: list[int] = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += [int(child) for child in (task / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return found


def _is_resource_tracker(pid: int) -> bool:
    try:
        return _RESOURCE_TRACKER in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _reap() -> None:
    """Collect dead children, so that they stop counting as children."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def _die_with(parent: int) -> None:
    """In the child before exec: be killed when the parent is, also if that has already happened."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
