"""The threat list: what hostile code tries, and that none of it works in the default sandbox.

Each attack is a solution that returns (or does) something only if it succeeded. The host's side is
checked too.
"""

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from apriel_mcore.verify.sandbox import Job, Ran, Sandbox, SandboxLimits, open_sandbox
from apriel_mcore.verify.sandbox_launch import launchers
from apriel_mcore.verify.values import decode

LIMITS = SandboxLimits(cpu_s=1.0, wall_s=15.0)
TOKEN = "token-" + secrets.token_hex(8)
REPOSITORY = str(Path(__file__).parents[2])


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """A proven sandbox whose processes carry a mark, so that a survivor would be seen on the host."""
    proven = open_sandbox("bwrap")
    mark = "mark-" + secrets.token_hex(8)
    marked = Sandbox(proven.launcher)
    marked._runner += f"# {mark}\n"
    yield marked
    assert wait_until_gone(mark) == []


def wait_until_gone(mark: str) -> list[bytes]:
    """Command lines on the host that hold the mark, after at most two seconds."""
    deadline = time.monotonic() + 2
    while (found := processes_with(mark)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def processes_with(mark: str) -> list[bytes]:
    found: list[bytes] = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended while we looked
            line = (folder / "cmdline").read_bytes()
            if mark.encode() in line:
                found.append(line)
    return found


@contextlib.contextmanager
def victim() -> Iterator[subprocess.Popen[bytes]]:
    """A process of the sandbox's own user, with a secret in its environment."""
    uid = next(launchers("bwrap")).uid
    sleep = ["/usr/bin/sleep", "60"]
    with subprocess.Popen(sleep, env={"TOKEN": TOKEN}, user=uid, group=uid, cwd="/") as process:
        try:
            yield process
        finally:
            process.kill()


def run(sandbox: Sandbox, source: str, *args: Any, limits: SandboxLimits = LIMITS) -> Ran:
    return sandbox.run(Job(source=source, entry_point="attack", inputs_N=[args]), limits)


def reply(ran: Ran) -> dict[str, Any]:
    """The reply to the only test; empty when none came."""
    return next((item for item in ran.replies if item.get("test") == 0), {})


def test_01_net(sandbox: Sandbox) -> None:
    source = "import socket\ndef attack(port): return bool(socket.create_connection(('127.0.0.1', port), 1))"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ran = run(sandbox, source, listener.getsockname()[1])
        assert reply(ran)["error"] in ("ConnectionRefusedError", "OSError", "TimeoutError")
        listener.settimeout(0.1)
        with pytest.raises(TimeoutError):
            listener.accept()


def test_02_write_out(sandbox: Sandbox) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        ran = run(sandbox, "def attack(path): open(path, 'w').write('x')", f"{folder}/file")
        assert reply(ran)["error"] == "FileNotFoundError"
        assert os.listdir(folder) == []


def test_03_read_etc(sandbox: Sandbox) -> None:
    ran = run(sandbox, "def attack(): return open('/etc/passwd').read()")
    assert reply(ran)["error"] == "FileNotFoundError"


def test_04_read_home(sandbox: Sandbox) -> None:
    ran = run(sandbox, "import os\ndef attack(path): return os.listdir(path)", REPOSITORY)
    assert reply(ran)["error"] == "FileNotFoundError"


def test_05_env(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", TOKEN)
    ran = run(sandbox, "import os\ndef attack(): return repr(os.environ)")
    assert TOKEN not in reply(ran)["value"]


def test_06_ppid_env(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", TOKEN)
    source = "import os\ndef attack(): return open(f'/proc/{os.getppid()}/environ').read()"
    assert TOKEN not in reply(run(sandbox, source)).get("value", "")


SCAN = """
import os
def attack():
    found = ""
    for name in os.listdir("/proc"):
        try:
            found += open(f"/proc/{name}/environ").read()
        except OSError:
            pass
    return found
"""


def test_07_scan_env(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", TOKEN)
    with victim():
        assert TOKEN not in reply(run(sandbox, SCAN))["value"]


def test_08_kill_parent(sandbox: Sandbox) -> None:
    source = "import os, time\ndef attack():\n    os.kill(os.getppid(), 9)\n    time.sleep(0.2)\n    return 1"
    assert reply(run(sandbox, source))["value"] == 1


def test_09_kill_host(sandbox: Sandbox) -> None:
    with victim() as process:
        ran = run(sandbox, "import os\ndef attack(pid): os.kill(pid, 9)", process.pid)
        assert reply(ran)["error"] == "ProcessLookupError"
        assert process.poll() is None


def test_10_mem(sandbox: Sandbox) -> None:
    assert reply(run(sandbox, "def attack(): return len(bytearray(2 << 30))"))["error"] == "MemoryError"


FORKS = """
import os, time
def attack():
    born = 0
    for _ in range(100):
        try:
            if os.fork() == 0:
                time.sleep(60)
                os._exit(0)
        except OSError:
            break
        born += 1
    return born
"""


def test_11_fork100(sandbox: Sandbox) -> None:
    assert 0 < reply(run(sandbox, FORKS))["value"] < LIMITS.processes


def test_12_loop(sandbox: Sandbox) -> None:
    ran = run(sandbox, "def attack():\n    while True: pass", limits=SandboxLimits(cpu_s=1.0, wall_s=30.0))
    assert ran.ending == "cpu"


def test_13_sleep(sandbox: Sandbox) -> None:
    started = time.monotonic()
    ran = run(sandbox, "import time\ndef attack(): time.sleep(600)", limits=SandboxLimits(wall_s=1.0))
    assert ran.ending == "wall"
    assert time.monotonic() - started < 2.0


DAEMON = """
import os, sys, time
def attack(mark):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.closerange(0, 256)
            os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(60)", mark])
        os._exit(0)
    time.sleep(0.3)
    return 1
"""


def test_14_daemon(sandbox: Sandbox) -> None:
    mark = "daemon-" + secrets.token_hex(8)
    assert reply(run(sandbox, DAEMON, mark))["value"] == 1
    assert wait_until_gone(mark) == []


def test_15_stdout1g(sandbox: Sandbox) -> None:
    source = "import os\ndef attack():\n    for _ in range(1024): os.write(1, bytes(1 << 20))\n    return 1"
    assert reply(run(sandbox, source))["value"] == 1  # into nothing, at the cost of its own time
    program = Job(source="print('x' * (1 << 30))", entry_point="", inputs_N=[""])
    assert reply(sandbox.run(program, LIMITS))["exit"] != 0


FLOOD = """
import os
def attack():
    for name in sorted(os.listdir("/proc/self/fd"), key=int):
        try:
            for _ in range(100 if int(name) > 2 else 0):
                os.write(int(name), bytes(1 << 20))
        except OSError:
            pass
"""


def test_reply_flood(sandbox: Sandbox) -> None:
    assert run(sandbox, FLOOD).ending == "flood"


DISK = """
import os
def attack(num_files, num_bytes, folder):
    written = 0
    for number in range(num_files):
        try:
            with open(f"{folder}/{number}", "wb", buffering=0) as stream:
                written += stream.write(bytes(num_bytes))
        except OSError:
            break
    return written
"""


@pytest.mark.parametrize(
    ("num_files", "num_bytes", "folder", "allowed"),
    [
        (1, 64 << 20, ".", 1 << 20),
        (64, 1 << 20, "/tmp", 16 << 20),
        (64, 1 << 20, "/dev/shm", 0),
        (64, 1, "/", 0),
    ],
)
def test_16_disk(sandbox: Sandbox, num_files: int, num_bytes: int, folder: str, allowed: int) -> None:
    assert reply(run(sandbox, DISK, num_files, num_bytes, folder))["value"] <= allowed


IGNORE = """
import signal, time
def attack(busy):
    for number in range(1, 65):
        try:
            signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError):
            pass
    while busy: pass
    time.sleep(600)
"""


@pytest.mark.parametrize(("busy", "ending"), [(True, "cpu"), (False, "wall")])
def test_17_sigterm(sandbox: Sandbox, busy: bool, ending: str) -> None:
    limits = SandboxLimits(cpu_s=1.0, wall_s=30.0 if busy else 1.0)
    assert run(sandbox, IGNORE, busy, limits=limits).ending == ending


PLANT = """
import os, subprocess, sys
def attack(rounds):
    before = sorted(os.listdir("."))
    for name in ("sitecustomize", "json", "resource"):
        with open(f"{name}.py", "w") as stream:
            stream.write("open('/tmp/ran', 'w')")
    subprocess.run([sys.executable, "-I", "-S", "-c", "import json, resource"])
    return before + ["ran"] * os.path.exists("/tmp/ran")
"""


def test_18_sitecust(sandbox: Sandbox) -> None:
    for round_number in range(2):
        assert decode(reply(run(sandbox, PLANT, round_number))["value"]) == []


NEW_USER_NAMESPACE = """
import ctypes
def attack():
    libc = ctypes.CDLL(None, use_errno=True)
    return libc.unshare(0x10000000)
"""


def test_nested_user_namespace(sandbox: Sandbox) -> None:
    assert reply(run(sandbox, NEW_USER_NAMESPACE))["value"] == -1


THREADS = """
import threading, time
def attack():
    started = 0
    try:
        for _ in range(100):
            threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
            started += 1
    except RuntimeError:
        pass
    return started
"""


def test_threads_count_as_processes(sandbox: Sandbox) -> None:
    assert 0 < reply(run(sandbox, THREADS))["value"] < LIMITS.processes


ORPHAN = """
import sys
from apriel_mcore.verify.sandbox import Job, SandboxLimits, Sandbox, open_sandbox
sandbox = Sandbox(open_sandbox("bwrap").launcher)
sandbox._runner += f"# {sys.argv[1]}"
source = "import time\\ndef attack(): time.sleep(600)"
sandbox.run(Job(source=source, entry_point="attack", inputs_N=[[]]), SandboxLimits(wall_s=30.0))
"""


def test_a_killed_verifier_leaves_nothing_alive() -> None:
    mark = "orphan-" + secrets.token_hex(8)
    with subprocess.Popen([sys.executable, "-c", ORPHAN, mark], cwd=REPOSITORY) as verifier:
        deadline = time.monotonic() + 20
        while len(processes_with(mark)) < 3:  # the verifier, bubblewrap outside, bubblewrap inside
            assert verifier.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        verifier.kill()
    assert wait_until_gone(mark) == []
