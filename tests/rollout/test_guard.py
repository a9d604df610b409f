"""However one of the processes ends, none of the others stays."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

GUARD = [sys.executable, "-m", "apriel_mcore.rollout.guard"]

# A "server" with a child of its own that left its process group, as an engine might.
FAMILY = """
import os, subprocess, sys, time
child = subprocess.Popen(["sleep", "600"], start_new_session=True)
open(sys.argv[1], "w").write(f"{os.getpid()} {child.pid} {os.environ['TMPDIR']}")
time.sleep(600)
"""
STUBBORN = FAMILY.replace(
    "import os", "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); import os"
)


def _wait_for(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "condition not met in time"
        time.sleep(0.01)


def _is_running(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False


def _family(note: Path) -> tuple[int, int, Path]:
    _wait_for(lambda: note.exists() and len(note.read_text().split()) == 3)
    server, child, scratch = note.read_text().split()
    return int(server), int(child), Path(scratch)


def _start(note: Path, script: str = FAMILY, grace_s: float = 5.0) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*GUARD, str(os.getpid()), str(grace_s), sys.executable, "-c", script, str(note)])


def test_the_guard_ends_with_the_exit_code_of_the_server(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit(7)"]
    assert subprocess.run([*GUARD, str(os.getpid()), "5", *command], timeout=20).returncode == 7


def test_a_killed_server_takes_its_children_with_it(tmp_path: Path) -> None:
    guard = _start(tmp_path / "note")
    server, child, scratch = _family(tmp_path / "note")
    assert scratch.is_dir()
    os.kill(server, signal.SIGKILL)
    assert guard.wait(10) == 128 + signal.SIGKILL
    assert not _is_running(child)
    assert not scratch.exists()


def test_terminating_the_guard_ends_all(tmp_path: Path) -> None:
    guard = _start(tmp_path / "note")
    server, child, _ = _family(tmp_path / "note")
    guard.terminate()
    assert guard.wait(10) == 128 + signal.SIGTERM
    assert not _is_running(server)
    assert not _is_running(child)


def test_a_server_that_ignores_sigterm_is_killed_after_the_grace(tmp_path: Path) -> None:
    guard = _start(tmp_path / "note", STUBBORN, grace_s=0.2)
    server, child, _ = _family(tmp_path / "note")
    guard.terminate()
    guard.wait(10)
    assert not _is_running(server)
    assert not _is_running(child)


def test_nothing_outlives_a_parent_killed_by_force(tmp_path: Path) -> None:
    note = tmp_path / "note"
    parent_script = (
        "import os, subprocess, sys, time\n"
        f"server = [sys.executable, '-c', {FAMILY!r}, {str(note)!r}]\n"
        f"subprocess.Popen([*{GUARD!r}, str(os.getpid()), '5', *server])\n"
        "time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", parent_script])
    server, child, scratch = _family(note)
    parent.kill()
    parent.wait()
    _wait_for(lambda: not _is_running(server) and not _is_running(child) and not scratch.exists())


def test_a_killed_guard_takes_the_server_with_it(tmp_path: Path) -> None:
    guard = _start(tmp_path / "note")
    server, child, scratch = _family(tmp_path / "note")
    guard.kill()
    guard.wait()
    _wait_for(lambda: not _is_running(server))
    os.kill(child, signal.SIGKILL)  # vLLM's own children watch a pipe to their parent; `sleep` does not
    scratch.rmdir()


def test_a_guard_whose_parent_is_not_the_one_named_starts_nothing(tmp_path: Path) -> None:
    command = [*GUARD, "1", "5", sys.executable, "-c", FAMILY, str(tmp_path / "note")]
    assert subprocess.run(command, timeout=20).returncode == 1
    assert not (tmp_path / "note").exists()
