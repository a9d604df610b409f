"""The sandbox's trusted half: it forks one confined process for each solution, times it and outlives it.

    boot file -> server --fork--> job; limits, no new privileges, landlock, seccomp -> sandbox_child.py
       parent --terms, job and reply descriptors-->    watch, kill, reap    --how it ended--> parent

Every child gets a copy of the server's memory, freed parts included, and can read all of it. So the server
reads of a run only its terms (times and limits): source, inputs and output are opened in children alone, and
nothing of one run, be it a solution's or a checker's, is there for the next to find.

Started as `python -I -S -c <this file> BOOT_FD CONTROL_FD`: standard library only, nothing newer than Python
3.9. Jobs come marshalled, and of socket only the C half is used: what json, socket and signal import took a
third of a cold start. A solution can neither start processes nor send signals, so once its one process is
reaped nothing of it is left.
"""

from __future__ import annotations

import _socket
import ctypes
import gc
import itertools
import marshal
import os
import resource
import select
import struct
import sys
import time
from types import ModuleType

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing typing is some percent of a cold start
    from typing import Any, NoReturn

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_FILTER = 2
_CPU_CLOCK = 2  # clock_getcpuclockid(3) of a process: its number's complement, then this in three bits
_SIGKILL, _SIGXCPU = 9, 24  # on both machines that the filter knows
# Landlock's numbers are the same on every machine.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 1, 1 << 2, 1 << 3
_OLDEST_ABI = 3
"""From here on a file cannot be truncated past the rules (Linux 6.2)."""
_NEWEST_ABI = 6
_LOOK_S = 0.1
_LEAST_S = 0.05
"""For each process of a run: what one test overran unseen is not the next one's fault."""
TMP = "/tmp"
TERMS_BYTES = 1 << 10
"""Room for one message: times, limits and a nonce."""
COMMON = (
    *("bisect", "collections", "copy", "functools", "heapq", "itertools", "json"),
    *("math", "operator", "re", "string", "typing"),
)

libc = ctypes.CDLL(None, use_errno=True)


class Confinement:
    """What every solution is put under besides its limits, prepared once."""

    def __init__(self, landlock: dict[str, list[str]], program: bytes) -> None:
        self._program = program
        self._ruleset = make_ruleset(landlock) if landlock else -1

    def enter(self) -> None:
        """This process and its threads, for good."""
        call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        if self._ruleset >= 0:
            call("syscall", _RESTRICT_SELF, self._ruleset, 0)
            os.close(self._ruleset)
        code = ctypes.create_string_buffer(self._program, len(self._program))
        head = struct.pack("HxxxxxxP", len(self._program) // 8, ctypes.addressof(code))
        call("prctl", _PR_SET_SECCOMP, _FILTER, ctypes.c_char_p(head), 0, 0)


def make_ruleset(landlock: dict[str, list[str]]) -> int:
    """A descriptor of rules: the listed trees can be read, the listed devices also written, nothing else."""
    abi = int(libc.syscall(_CREATE_RULESET, None, 0, 1))
    if abi < _OLDEST_ABI:
        raise OSError(f"landlock: this kernel offers version {abi}, {_OLDEST_ABI} is needed (Linux 6.2)")
    files = (1 << (16 if abi >= 5 else 15)) - 1
    network = 0b11 if abi >= 4 else 0
    scoped = 0b11 if abi >= _NEWEST_ABI else 0
    attributes = struct.pack("QQQ", files, network, scoped)[
        : 8 if abi < 4 else 16 if abi < _NEWEST_ABI else 24
    ]
    ruleset = call("syscall", _CREATE_RULESET, ctypes.c_char_p(attributes), len(attributes), 0)
    for path in landlock["read"]:
        add_rule(ruleset, path, _READ_FILE | _READ_DIR)
    for path in landlock["devices"]:
        add_rule(ruleset, path, _READ_FILE | _WRITE_FILE)
    return ruleset


def add_rule(ruleset: int, path: str, rights: int) -> None:
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    if not os.path.isdir(path):
        rights &= ~_READ_DIR
    call("syscall", _ADD_RULE, ruleset, 1, ctypes.c_char_p(struct.pack("=Qi", rights, fd)), 0)
    os.close(fd)


def call(name: str, *args: Any) -> int:
    """A C function's result; OSError for a negative one."""
    long_args = [ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args]
    result = int(libc[name](*long_args))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}{args[:1]}: {os.strerror(error)}")
    return result


class Clock:
    """A run's wall-clock budget, of which only the time counts that the host let the solution use.

    A process that sleeps uses its time. One that is ready to run and waits for a core does not, unless it
    waits for the solution's own other threads.
    """

    def __init__(self, wall_s: float) -> None:
        self.left = wall_s

    def watch(self, pid: int, cpu_s: int) -> tuple[str, int]:
        """(ending, wait status) of a child that has been reaped: it ended, or its time was up."""
        self.left = max(self.left, _LEAST_S)
        use = Use(pid)
        poll = select.poll()
        pid_fd = os.pidfd_open(pid)
        poll.register(pid_fd, select.POLLIN)
        ended = False
        while not ended and (left := self.left - use.felt_s()) > 0:
            ended = bool(poll.poll(min(left, _LOOK_S) * 1000 + 1))
        self.left -= use.felt_s()
        if not ended:
            os.kill(pid, _SIGKILL)
        os.close(pid_fd)
        _, status, usage = os.wait4(pid, 0)
        if not ended:
            return "wall", status
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        if number == _SIGXCPU:
            return "cpu", status
        if number == _SIGKILL:  # the hard CPU limit, or somebody outside (a kernel short of memory)
            return ("cpu" if usage.ru_utime + usage.ru_stime >= cpu_s else "killed"), status
        return "exit", status


class Use:
    """The time that one process felt.

    The kernel reports a thread's wait when it is over. What all threads ran since the report before is taken
    off, for it may have waited for them. The rest adds to what had been withheld until then, so that waits of
    two threads at one time count once, and those of a thread that ended still count. In all it is at most the
    time without a core.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.started = time.monotonic()
        self.passed_s = self.cpu_s = self.idle_s = self.withheld_s = 0.0
        self.reports: dict[str, tuple[float, float, float]] = {}
        """Of each thread, as of its last: its own time, the CPU time of all, withheld_s."""

    def felt_s(self) -> float:
        """Looks once more."""
        busy = busy_s_of(self.pid)
        cpu_s, passed_s = cpu_s_of(self.pid), time.monotonic() - self.started
        new = (0.0, self.cpu_s, self.withheld_s)
        last = {thread: self.reports.get(thread, new) for thread in busy}
        withheld_s = [
            before_s + busy[thread] - busy_s - (cpu_s - ran_s)
            for thread, (busy_s, ran_s, before_s) in last.items()
        ]
        self.idle_s += max(passed_s - self.passed_s - (cpu_s - self.cpu_s), 0.0)
        self.withheld_s = min(max([self.withheld_s, *withheld_s]), self.idle_s)
        self.passed_s, self.cpu_s = passed_s, cpu_s
        report = (cpu_s, self.withheld_s)
        self.reports = {
            thread: (busy_s, *report) if busy_s > last[thread][0] else last[thread]
            for thread, busy_s in busy.items()
        }
        return passed_s - self.withheld_s


def busy_s_of(pid: int) -> dict[str, float]:
    """Of each living thread: the time on a core and the time that it waited for one."""
    busy = {}
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{task}/schedstat") as stream:
                ran_ns, waited_ns = stream.read().split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue  # a thread that ended while we looked
        busy[task] = (int(ran_ns) + int(waited_ns)) / 1e9
    return busy


def cpu_s_of(pid: int) -> float:
    """Of all threads of a process that is not reaped, also of those that ended."""
    return time.clock_gettime(~pid << 3 | _CPU_CLOCK)


class Run:
    """One job: the solution's processes, one after the other, and how the last of them ended.

    The job itself stays behind its descriptor until a child reads it.
    """

    def __init__(self, terms: dict[str, Any], job_fd: int, reply_fd: int, boot: Boot) -> None:
        self.terms = terms
        self.job_fd = job_fd
        self.boot = boot
        self.clock = Clock(terms["wall_s"])
        self.replies = boot.runner.Replies(reply_fd, terms["nonce"])

    def finish(self) -> str:
        ending = self.finish_programs() if self.terms["num_programs"] else self.finish_process()[0]
        os.close(self.job_fd)
        os.close(self.replies.fd)
        return ending

    def finish_process(self, *program: int) -> tuple[str, int]:
        """(ending, wait status) of one process; `program`: a test's number and the stdout for it."""
        pid = os.fork()
        if pid == 0:
            self.solve(*program)
        return self.clock.watch(pid, self.terms["limits"]["cpu_s"])

    def finish_programs(self) -> str:
        """Each test in a process of its own; the first that fails settles the verdict and ends the run."""
        for test in range(self.terms["num_programs"]):
            stdout_fd = os.memfd_create("stdout")
            ending, status = self.finish_process(test, stdout_fd)
            self.report(stdout_fd, test=test, exit=os.waitstatus_to_exitcode(status), ending=ending)
            os.close(stdout_fd)
            if status != 0:
                return ending
        return "exit"

    def report(self, stdout_fd: int, **fields: Any) -> None:
        """In a child too: one answer's output is as good as the expected value to another."""
        pid = os.fork()
        if pid == 0:
            try:
                self.boot.leave()
                self.replies.send(**fields, stdout=self.boot.runner.text_in(stdout_fd))
                os._exit(0)
            finally:
                os._exit(1)
        if os.waitpid(pid, 0)[1] != 0:
            raise OSError("what a program printed could not be sent")

    def solve(self, *program: int) -> NoReturn:
        """In the child: the job is read, then confined, then the runner, which never returns."""
        runner = self.boot.runner
        try:
            self.boot.leave()
            runner.silence()
            job = self.read_job()
            std_fds = (runner.file_of(job["inputs_N"][program[0]]), program[1]) if program else ()
            runner.set_limits(self.terms["limits"])
            self.boot.confinement.enter()
        # Whatever it is, no solution has been touched, and the parent must hear of it.
        except BaseException as error:
            self.replies.send(broken=repr(error))
            os._exit(1)
        runner.run(job, std_fds, self.boot.values, self.replies)
        os._exit(0)

    def read_job(self) -> dict[str, Any]:
        """From its beginning: the children of a run share one position in the file."""
        os.lseek(self.job_fd, 0, os.SEEK_SET)
        with open(self.job_fd, "rb") as stream:
            return marshal.load(stream)


class Boot:
    """What the server was started with."""

    def __init__(self, sources: dict[str, Any], control: _socket.socket) -> None:
        self.control = control
        self.values = load("values", sources["codec"])
        self.runner = load("runner", sources["runner"])
        self.private_tmp: bool = sources["private_tmp"]
        self.confinement = Confinement(sources["landlock"], bytes.fromhex(sources["filter"]))

    def leave(self) -> None:
        """In a child: end with the server, and let go of what is the server's."""
        call("prctl", _PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
        self.control.close()

    def is_clean(self) -> bool:
        """Whether the last run left no file behind; a server that is not clean is not used again."""
        return not self.private_tmp or not os.listdir(TMP)


def load(name: str, source: str) -> ModuleType:
    module = ModuleType(name)
    sys.modules[name] = module
    exec(compile(source, f"<{name}>", "exec", dont_inherit=True), module.__dict__)
    return module


def receive(control: _socket.socket) -> tuple[bytes, tuple[int, ...]]:
    """A run's terms, and the descriptors of its job and of its replies; none when the parent hung up."""
    room = _socket.CMSG_LEN(2 * struct.calcsize("i"))
    terms, ancillary, _, _ = control.recvmsg(TERMS_BYTES, room)
    return terms, struct.unpack("ii", ancillary[0][2]) if ancillary else ()


def freeze() -> None:
    """The children's collector leaves these pages alone."""
    gc.collect()
    gc.freeze()


def warm_up() -> None:
    """What many solutions import: once here, for a server that is used again, and not in each child."""
    for name in COMMON:
        __import__(name)
    freeze()


def main() -> None:
    """Serves runs until the parent hangs up."""
    with open(int(sys.argv[1]), "rb") as stream:
        sources = marshal.load(stream)
    call("prctl", _PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
    call("prctl", _PR_SET_DUMPABLE, 0, 0, 0, 0)  # a solution of the same user cannot look in
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    control = _socket.socket(fileno=int(sys.argv[2]))
    boot = Boot(sources, control)
    freeze()
    control.send(b"up")
    for number in itertools.count():
        terms, fds = receive(control)
        if not fds:
            os._exit(0)
        if number == 1:
            warm_up()
        job_fd, reply_fd = fds
        run = Run(marshal.loads(terms), job_fd, reply_fd, boot)
        ending = run.finish()
        felt = run.terms["wall_s"] - run.clock.left
        control.send(
            boot.runner.json_of({"ending": ending, "felt_s": felt, "clean": boot.is_clean()}).encode()
        )


if __name__ == "__main__":
    main()
