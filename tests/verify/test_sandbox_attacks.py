"""The threat list: what hostile code tries, and that none of it works on any backend.

Each attack is a solution that returns (or does) something only if it succeeded. The host's side is
checked too.
"""

import contextlib
import os
import platform
import secrets
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from apriel_mcore.verify import sandbox_process
from apriel_mcore.verify.sandbox import Job, Ran, Sandbox, SandboxLimits, open_sandbox
from apriel_mcore.verify.sandbox_launch import Backend
from apriel_mcore.verify.sandbox_process import source_of
from apriel_mcore.verify.values import decode

LIMITS = SandboxLimits(cpu_s=1.0, wall_s=15.0)
TOKEN = "token-" + secrets.token_hex(8)
REPOSITORY = str(Path(__file__).parents[2])


@pytest.fixture(scope="module", params=get_args(Backend))
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A proven sandbox whose processes carry a mark, so that a survivor would be seen on the host."""
    proven = open_sandbox(request.param)
    mark = "mark-" + secrets.token_hex(8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sandbox_process, "source_of", lambda name: source_of(name) + f"# {mark}\n")
        marked = Sandbox(proven.launcher)
        yield marked
        marked.close()
    assert wait_until_gone(mark) == []


def is_bwrap(sandbox: Sandbox) -> bool:
    return sandbox.launcher.backend == "bwrap"


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
def victim(sandbox: Sandbox) -> Iterator[subprocess.Popen[bytes]]:
    """A process of the sandbox's own user, with a secret in its environment."""
    uid = sandbox.launcher.uid
    sleep = ["/usr/bin/sleep", "60"]
    with subprocess.Popen(sleep, env={"TOKEN": TOKEN}, user=uid, group=uid, cwd="/") as process:
        try:
            yield process
        finally:
            process.kill()


DENIED = ("FileNotFoundError", "PermissionError", "OSError")


def run(sandbox: Sandbox, source: str, *args: Any, limits: SandboxLimits = LIMITS) -> Ran:
    return sandbox.run(Job(source=source, entry_point="attack", inputs_N=[args]), limits)


def reply(ran: Ran) -> dict[str, Any]:
    """The reply to the only test; empty when none came."""
    return next((item for item in ran.replies if item.get("test") == 0), {})


def test_01_net(sandbox: Sandbox) -> None:
    source = "import socket\ndef attack(port): return bool(socket.create_connection(('127.0.0.1', port), 1))"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ran = run(sandbox, source, listener.getsockname()[1])
        assert reply(ran)["error"] == "OSError"
        listener.settimeout(0.1)
        with pytest.raises(TimeoutError):
            listener.accept()


def test_02_write_out(sandbox: Sandbox) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        ran = run(sandbox, "def attack(path): open(path, 'w').write('x')", f"{folder}/file")
        assert reply(ran)["error"] in DENIED
        assert os.listdir(folder) == []


def test_03_read_etc(sandbox: Sandbox) -> None:
    ran = run(sandbox, "def attack(): return open('/etc/passwd').read()")
    assert reply(ran)["error"] in DENIED


def test_04_read_home(sandbox: Sandbox) -> None:
    ran = run(sandbox, "import os\ndef attack(path): return os.listdir(path)", REPOSITORY)
    assert reply(ran)["error"] in DENIED


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
    for number in range(1, 70000):
        try:
            found += open(f"/proc/{number}/environ").read()
        except OSError:
            pass
    return found
"""


def test_07_scan_env(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", TOKEN)
    with victim(sandbox):
        assert TOKEN not in reply(run(sandbox, SCAN))["value"]


def test_08_kill_parent(sandbox: Sandbox) -> None:
    assert reply(run(sandbox, "import os\ndef attack(): os.kill(os.getppid(), 9)"))["error"] == "OSError"


def test_09_kill_host(sandbox: Sandbox) -> None:
    with victim(sandbox) as process:
        ran = run(sandbox, "import os\ndef attack(pid): os.kill(pid, 9)", process.pid)
        assert reply(ran)["error"] == "OSError"
        assert process.poll() is None


def test_10_mem(sandbox: Sandbox) -> None:
    assert reply(run(sandbox, "def attack(): return len(bytearray(2 << 30))"))["error"] == "MemoryError"


FORKS = """
import os, time
def attack():
    born = 0
    for start in (os.fork, os.forkpty, lambda: os.posix_spawn("/usr/bin/sleep", ["sleep", "60"], {})):
        try:
            if start() == 0:
                time.sleep(60)
                os._exit(0)
        except OSError:
            continue
        born += 1
    return born
"""


def test_11_fork100(sandbox: Sandbox) -> None:
    assert reply(run(sandbox, FORKS))["value"] == 0


def test_12_loop(sandbox: Sandbox) -> None:
    ran = run(sandbox, "def attack():\n    while True: pass", limits=SandboxLimits(cpu_s=1.0, wall_s=30.0))
    assert ran.ending == "cpu"


def test_13_sleep(sandbox: Sandbox) -> None:
    started = time.monotonic()
    ran = run(sandbox, "import time\ndef attack(): time.sleep(600)", limits=SandboxLimits(wall_s=1.0))
    assert ran.ending == "wall"
    assert time.monotonic() - started < 2.0


DAEMON = """
import os, sys
def attack(mark):
    try:
        if os.fork():
            return 0
        os.setsid()
    except OSError:
        pass  # then it stays itself, which must not outlive the run either
    os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(60)", mark])
"""


def test_14_daemon(sandbox: Sandbox) -> None:
    mark = "daemon-" + secrets.token_hex(8)
    assert reply(run(sandbox, DAEMON, mark))["error"] == "OSError"
    assert wait_until_gone(mark) == []


def test_15_stdout1g(sandbox: Sandbox) -> None:
    source = "import os\ndef attack():\n    for _ in range(1024): os.write(1, bytes(1 << 20))\n    return 1"
    assert reply(run(sandbox, source))["value"] == 1  # into nothing, at the cost of its own time
    program = Job(source="print('x' * (1 << 30))", entry_point="", inputs_N=[""])
    assert reply(sandbox.run(program, LIMITS))["exit"] != 0


FLOOD = """
import os
def attack():
    for number in range(3, 64):
        try:
            for _ in range(100):
                os.write(number, bytes(1 << 20))
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
    allowed = allowed if is_bwrap(sandbox) else 0
    assert reply(run(sandbox, DISK, num_files, num_bytes, folder))["value"] <= allowed
    assert reply(run(sandbox, "import os\ndef attack(): return os.listdir('/tmp')")).get("value") in (
        None,
        {"list": []},
    )


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
import os, sys
def attack(rounds):
    found = []
    for folder in ("/tmp",):
        try:
            found += os.listdir(folder)
            for name in ("sitecustomize", "json", "resource"):
                with open(f"{folder}/{name}.py", "w") as stream:
                    stream.write("raise SystemExit")
        except OSError:
            pass
    return found
"""


def test_18_sitecust(sandbox: Sandbox) -> None:
    for round_number in range(3):
        assert decode(reply(run(sandbox, PLANT, round_number))["value"]) == []


# Attacks of our own.

CALL = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def attack(numbers):
    passed = []
    for number, args in numbers:
        if libc.syscall(ctypes.c_long(number), *[ctypes.c_long(arg) for arg in args]) >= 0:
            passed.append(number)
    return passed
"""

x86_only = pytest.mark.skipif(platform.machine() != "x86_64", reason="system-call numbers of x86_64")
KERNEL = {
    "ptrace_traceme": (101, 0, 0, 0, 0),
    "mount": (165, 0, 0, 0, 0, 0),
    "umount": (166, 0, 0),
    "chroot": (161, 0),
    "unshare_user": (272, 0x10000000),
    "setns": (308, 0, 0),
    "bpf": (321, 0, 0, 0),
    "perf_event_open": (298, 0, 0, -1, -1, 0),
    "userfaultfd": (323, 0),
    "io_uring_setup": (425, 8, 0),
    "keyctl": (250, 0, 0, 0),
    "memfd_create": (319, 0, 0),
    "inotify_init": (253,),
    "shmget": (29, 0, 4096, 0o1600),
    "mq_open": (240, 0, 0, 0, 0),
    "setsid": (112,),
    "setuid": (105, 0),
    "socket_inet": (41, 2, 1, 0),
    "socket_unix": (41, 1, 1, 0),
    "socket_netlink": (41, 16, 3, 0),
    "socketpair_inet": (53, 2, 1, 0, 0),
    "clone_process": (56, 17, 0, 0, 0, 0),
    "vfork": (58,),
    "fork_x32": (0x40000000 + 57,),
    "mlockall": (151, 3),
    "sched_setaffinity": (203, 0, 8, 0),
    "personality": (135, 0xFFFFFFFF),
    "seccomp_get": (317, 2, 0, 0),
    "no_undumpable": (157, 4, 1, 0, 0, 0),
}


@x86_only
@pytest.mark.parametrize("name", KERNEL)
def test_19_kernel_entrances_are_closed(sandbox: Sandbox, name: str) -> None:
    number, *args = KERNEL[name]
    tree = {"list": [{"list": [number, {"list": list(args)}]}]}
    assert reply(run(sandbox, CALL, tree))["value"] == {"list": []}


PEEK = """
import os
def attack(pid):
    found = []
    for who in (pid, os.getppid(), 1):
        for name in ("mem", "maps", "fd", "root", "environ", "cwd"):
            try:
                path = f"/proc/{who}/{name}"
                os.listdir(path) if name in ("fd", "root", "cwd") else open(path, "rb").close()
                found.append(path)
            except OSError:
                pass
    return found
"""


def test_20_other_processes_stay_closed(sandbox: Sandbox) -> None:
    with victim(sandbox) as process:
        assert decode(reply(run(sandbox, PEEK, process.pid))["value"]) == []


READ_VM = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def attack(pid):
    return max(libc.ptrace(16, who, 0, 0) for who in (pid, os.getppid(), 1))
"""


def test_21_attaching_to_other_processes(sandbox: Sandbox) -> None:
    with victim(sandbox) as process:
        assert reply(run(sandbox, READ_VM, process.pid))["value"] == -1


LIMITS_OF_OTHERS = """
import os, resource
def attack(pid):
    done = 0
    for who in (pid, os.getppid()):
        try:
            resource.prlimit(who, resource.RLIMIT_NOFILE, (0, 0))
            done += 1
        except OSError:
            pass
    return done
"""


def test_22_limits_of_other_processes(sandbox: Sandbox) -> None:
    with victim(sandbox) as process:
        assert reply(run(sandbox, LIMITS_OF_OTHERS, process.pid))["value"] == 0


RAISE_LIMITS = """
import resource
def attack():
    raised = []
    for name in ("AS", "CPU", "FSIZE", "NOFILE", "CORE"):
        which = getattr(resource, f"RLIMIT_{name}")
        _, hard = resource.getrlimit(which)
        try:
            resource.setrlimit(which, (hard + 1, hard + 1))
            raised.append(name)
        except (OSError, ValueError):
            pass
    return raised
"""


def test_23_raising_its_own_limits(sandbox: Sandbox) -> None:
    assert decode(reply(run(sandbox, RAISE_LIMITS))["value"]) == []


CHANGE = """
import os
def attack(path):
    changed = []
    for name, change in (
        ("chmod", lambda: os.chmod(path, 0o777)), ("utime", lambda: os.utime(path)),
        ("truncate", lambda: os.truncate(path, 0)), ("unlink", lambda: os.unlink(path)),
        ("rename", lambda: os.rename(path, path + "x")), ("link", lambda: os.link(path, path + "y")),
        ("xattr", lambda: os.setxattr(path, "user.x", b"1")), 
        ("symlink", lambda: os.symlink(path, path + "z")),
        ("mkdir", lambda: os.mkdir(path + "d")), ("trunc", lambda: os.open(path, os.O_TRUNC)),
    ):
        try:
            change()
            changed.append(name)
        except OSError:
            pass
    return changed
"""


def test_24_changing_a_file_of_its_own_user(sandbox: Sandbox) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        path = Path(folder) / "file"
        path.write_text("kept")
        if sandbox.launcher.uid is not None:
            os.chown(path, sandbox.launcher.uid, sandbox.launcher.uid)
        before = path.stat()
        assert decode(reply(run(sandbox, CHANGE, str(path)))["value"]) == []
        assert (os.listdir(folder), path.read_text()) == (["file"], "kept")
        assert (path.stat().st_mode, path.stat().st_mtime_ns) == (before.st_mode, before.st_mtime_ns)


DESCRIPTORS = """
import os
def attack():
    found = []
    for number in range(1024):
        try:
            found.append(os.fstat(number).st_mode & 0o170000)
        except OSError:
            pass
    return found
"""


def test_25_no_descriptor_but_its_own(sandbox: Sandbox) -> None:
    modes = decode(reply(run(sandbox, DESCRIPTORS))["value"])
    assert [stat.S_ISCHR(mode) for mode in modes[:3]] == [True] * 3  # /dev/null
    assert [stat.S_ISFIFO(mode) for mode in modes[3:]] == [True]  # the reply pipe


FORGE_END = """
import sys
def attack():
    frame = sys._getframe()
    while frame.f_back:
        frame = frame.f_back
        run = frame.f_locals.get("run") or frame.f_locals.get("self")
        if hasattr(run, "boot"):
            run.boot.control.send(b'{"ending": "killed", "felt_s": 0.0, "clean": true}')
"""


def test_26_the_server_speaks_for_itself(sandbox: Sandbox) -> None:
    assert reply(run(sandbox, FORGE_END))["error"] == "OSError"


FORGE_BROKEN = """
import os, sys
def attack():
    replies = sys._getframe(1).f_locals["replies"]
    replies.send(broken="not my fault")
    os._exit(1)
"""


def test_27_a_wrong_answer_cannot_call_itself_a_broken_sandbox(sandbox: Sandbox) -> None:
    ran = run(sandbox, FORGE_BROKEN)  # no VerifierError, which would take the rollout out of its group
    assert (reply(ran), ran.ending) == ({}, "exit")


NEXT_RUN = """
import builtins, string, sys
def attack():
    seen = [hasattr(builtins, "planted"), string.digits == "", "planted" in sys.modules]
    builtins.planted = True
    string.digits = ""
    sys.modules["planted"] = string
    return seen
"""


def test_28_nothing_reaches_the_next_run(sandbox: Sandbox) -> None:
    for _ in range(3):
        assert decode(reply(run(sandbox, NEXT_RUN))["value"]) == [False, False, False]


SMALL_THREADS = """
import threading, time
def attack():
    threading.stack_size(32768)
    started = 0
    try:
        for _ in range(5000):
            threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
            started += 1
    except RuntimeError:
        pass
    return started
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="landlock counts threads only for a user of its own")
def test_29_threads_are_counted(sandbox: Sandbox) -> None:
    assert 0 < reply(run(sandbox, SMALL_THREADS))["value"] < LIMITS.tasks


JSON_BOMB = """
import os, sys
def attack(kind):
    replies = sys._getframe(1).f_locals["replies"]
    head = b'{"nonce": "%s", "test": 0, "value": ' % replies.nonce.encode()
    body = {"deep": b"[" * 400_000, "digits": b"9" * 800_000, "key": b'{"a":' * 100_000}[kind]
    line = head + body + b"}\\n"
    while line:
        line = line[os.write(replies.fd, line):]
    os._exit(0)
"""


@pytest.mark.parametrize("kind", ["deep", "digits", "key"])
def test_30_reply_bombs(sandbox: Sandbox, kind: str) -> None:
    started = time.process_time()
    assert reply(run(sandbox, JSON_BOMB, kind)) == {}
    assert time.process_time() - started < 1.0


STOP = """
import ctypes, os, signal
def attack():
    libc = ctypes.CDLL(None)
    return [libc.kill(os.getpid(), 19), libc.kill(os.getppid(), 19), libc.kill(-1, 9), libc.raise_(19)
            if hasattr(libc, "raise_") else -1]
"""


def test_31_stopping_itself_or_all(sandbox: Sandbox) -> None:
    assert decode(reply(run(sandbox, STOP))["value"]) == [-1, -1, -1, -1]


UNIX_SOCKETS = """
import socket
def attack(name):
    one, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        one.sendto(b"hello", name)
    except OSError:
        return 0
    return 1
"""


def test_32_a_socket_pair_reaches_no_other_socket(sandbox: Sandbox) -> None:
    name = "\0apriel-" + secrets.token_hex(8)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(name)
        assert reply(run(sandbox, UNIX_SOCKETS, name))["value"] == 0


LOOK = """
import os
def attack(path, folder):
    seen = []
    for name, look in (
        ("stat", lambda: os.stat(path)), ("lstat", lambda: os.lstat(path)),
        ("readlink", lambda: os.readlink(path + ".link")), ("read", lambda: open(path, "rb").close()),
        ("open_link", lambda: open(path + ".link", "rb").close()), ("list", lambda: os.listdir(folder)),
        ("scan", lambda: list(os.scandir(folder))), ("write", lambda: open(path, "r+b").close()),
    ):
        try:
            look()
            seen.append(name)
        except OSError:
            pass
    return seen
"""


def test_33_under_landlock_a_file_can_be_looked_up_by_name_and_no_more(sandbox: Sandbox) -> None:
    """Of files outside /usr: mounts hide them, and landlock has no rule for stat and readlink."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        path = Path(folder) / "file"
        path.write_text("secret")
        path.chmod(0o666)
        Path(f"{path}.link").symlink_to(path)
        seen = decode(reply(run(sandbox, LOOK, str(path), folder))["value"])
    assert seen == ([] if is_bwrap(sandbox) else ["stat", "lstat", "readlink"])


def test_34_under_landlock_the_lookup_reaches_what_the_user_may_not_read(sandbox: Sandbox) -> None:
    source = "import os\ndef attack(): return os.stat('/etc/shadow').st_size"
    ran = reply(run(sandbox, source))
    assert ran.get("error") in DENIED if is_bwrap(sandbox) else ran["value"] == os.stat("/etc/shadow").st_size


ORPHAN = """
import sys
from apriel_mcore.verify import sandbox_process
from apriel_mcore.verify.sandbox import Job, SandboxLimits, Sandbox, open_sandbox
source_of = sandbox_process.source_of
sandbox = Sandbox(open_sandbox(sys.argv[2]).launcher)
sandbox_process.source_of = lambda name: source_of(name) + f"# {sys.argv[1]}"
source = "import time\\ndef attack(): time.sleep(600)"
sandbox.run(Job(source=source, entry_point="attack", inputs_N=[[]]), SandboxLimits(wall_s=30.0))
"""


@pytest.mark.parametrize(("backend", "num_processes"), [("bwrap", 4), ("landlock", 3)])
def test_a_killed_verifier_leaves_nothing_alive(backend: str, num_processes: int) -> None:
    mark = "orphan-" + secrets.token_hex(8)
    with subprocess.Popen([sys.executable, "-c", ORPHAN, mark, backend], cwd=REPOSITORY) as verifier:
        deadline = time.monotonic() + 20
        # The verifier, bubblewrap, the server and the solution.
        while len(processes_with(mark)) < num_processes:
            assert verifier.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        verifier.kill()
    assert wait_until_gone(mark) == []
