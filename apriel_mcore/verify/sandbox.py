"""How does model-written Python run without harming the host? In a confined process, forked for it alone.

    Sandbox.run --terms--> server (sandbox_server.py) in its launcher --fork--> solution <--job-- Sandbox.run
         ^                    |                                                    |
         '---- how it ended --'                                                    |
         '---- reply lines, believed only as claims -------------------------------'

The server is started once and forks a process for each run, which reads the job: memory that a process has
from the server can hold nothing of another run. Whatever goes wrong with it (it died, the run floods the
pipe, the host was too busy) it is killed with all below it, and the next run starts another.
"""

import functools
import json
import math
import re
import secrets
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import msgspec

from apriel_mcore.errors import InputError, VerifierError
from apriel_mcore.verify import sandbox_probe
from apriel_mcore.verify.sandbox_launch import Backend, Launcher, launchers
from apriel_mcore.verify.sandbox_process import End, Server

Ending = Literal["exit", "cpu", "wall", "flood"]
_SURROGATES = re.compile("[\ud800-\udfff]")


class SandboxLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What one run, which holds all tests of a problem, may use."""

    cpu_s: float = 3.0
    """Per process, rounded up to whole seconds; a program's tests are a process each."""
    wall_s: float = 6.0
    """For the whole run, less what the solution waited for a core while it was ready to use one."""
    give_up_s: float = 30.0
    """On the clock on the wall; a run that is still not over was starved by the host, and has no result."""
    memory_mib: int = 512
    """Address space."""
    file_bytes: int = 1 << 20
    """Size of a file, a program's output included."""
    open_files: int = 64
    tasks: int = 16
    """Threads in the sandbox, with its own few processes; not counted for landlock as an ordinary user."""
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
    """What came out of a run: the reply objects that carry its nonce, and how it ended.

    wall, cpu: the solution used up that budget; exit: it ended by itself; flood: it replied too much.
    """

    replies: tuple[dict[str, Any], ...]
    ending: Ending
    felt_s: float
    """Seconds of its wall-clock budget that the solution used."""


class Runner(Protocol):
    """Whatever can run a job; the verdict is formed by the one who asks."""

    def run(self, job: Job, limits: SandboxLimits) -> Ran:
        """As Sandbox.run."""
        ...


class Sandbox:
    """Runs solutions one at a time, each in a process of its own of which nothing is left.

    Not for several threads: a server dies with the thread that started it, as it must with its process.
    """

    def __init__(self, launcher: Launcher) -> None:
        self.launcher = launcher
        self._server: Server | None = None

    def run(self, job: Job, limits: SandboxLimits) -> Ran:
        """Run all tests of a job.

        VerifierError when there is no result that the solution is to blame for: the sandbox failed, or the
        host did not give it the time.
        """
        nonce = secrets.token_hex(8)
        terms = terms_of(job, limits, nonce, tasks=limits.tasks if self.launcher.own_uid else 0)
        server = self._claim()
        clean = False
        try:
            replies, end = server.run(
                terms,
                msgspec.structs.asdict(job),
                reply_bytes=limits.reply_bytes,
                give_up_s=limits.give_up_s,
            )
            clean = end.clean
        finally:
            if not clean:
                server.kill()
                self._server = None
        return read_replies(replies, nonce, end, function=bool(job.entry_point))

    def close(self) -> None:
        """End the server."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def _claim(self) -> Server:
        """The server that stayed clean, or a new one."""
        if self._server is None or not self._server.is_alive:
            self.close()
            self._server = Server(self.launcher)
        return self._server


def terms_of(job: Job, limits: SandboxLimits, nonce: str, *, tasks: int) -> dict[str, Any]:
    """What a server may know of a run: nothing that is worth reading. `tasks` 0: no limit on them."""
    return {
        "nonce": nonce,
        "wall_s": limits.wall_s,
        "num_programs": 0 if job.entry_point else len(job.inputs_N),
        "limits": {
            "tasks": tasks,
            "open_files": limits.open_files,
            "file_bytes": limits.file_bytes,
            "memory_bytes": limits.memory_mib << 20,
            "cpu_s": math.ceil(limits.cpu_s),
        },
    }


def read_replies(lines: bytes, nonce: str, end: End, *, function: bool) -> Ran:
    """The believable replies of a run; VerifierError when the solution was not reached or not let finish.

    That nothing could be run is only believed before anything was: a function could say so itself, later.
    """
    replies = tuple(_believable(lines, nonce))
    for reply in replies[:1] if function else replies:
        if "broken" in reply:
            raise VerifierError(f"sandbox: a process could not be confined: {reply['broken']}")
    if not any(reply.get("ready") is True for reply in replies):
        raise VerifierError(f"sandbox: the runner did not start ({end.ending})")
    if end.ending == "killed":
        raise VerifierError("sandbox: the solution was killed from outside; is the host short of memory?")
    return Ran(replies=replies, ending=end.ending, felt_s=end.felt_s)


def _believable(lines: bytes, nonce: str) -> list[dict[str, Any]]:
    """Whole reply lines of this run. The nonce only keeps noise apart: the solution could read and use it."""
    found: list[dict[str, Any]] = []
    for line in lines.split(b"\n")[:-1]:
        try:
            reply = _whole(json.loads(line.decode()))
        except (ValueError, RecursionError):
            continue
        if isinstance(reply, dict) and reply.get("nonce") == nonce:
            found.append(reply)
    return found


def _whole(reply: Any) -> Any:
    """The reply with U+FFFD for lone surrogates: JSON can say them, and no verdict could be sent with one."""
    said = json.dumps(reply, ensure_ascii=False)
    return json.loads(_SURROGATES.sub("\ufffd", said)) if _SURROGATES.search(said) else reply


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
        sandbox.close()
        failures.append(f"{launcher.prefix[:1] or launcher.python}: not contained: {', '.join(breaches)}")
    raise InputError(
        f'verify.sandbox.kind = "{backend}" does not work on this machine: '
        f"{'; '.join(dict.fromkeys(failures))}. {sandbox_probe.REMEDIES[backend]}"
    )


def probe(sandbox: Sandbox) -> list[str]:
    """Names of the probe's attacks that succeeded; VerifierError when not even a good program runs."""
    limits = SandboxLimits(wall_s=20.0)
    with sandbox_probe.targets() as target_trees:
        job = Job(source=sandbox_probe.SOURCE, entry_point="breaches", inputs_N=[target_trees])
        ran = sandbox.run(job, limits)
    for reply in ran.replies:
        if reply.get("test") == 0 and isinstance(reply.get("value"), dict):
            return reply["value"]["list"]
    raise VerifierError(
        f"sandbox {sandbox.launcher.backend}: the probe ended without an answer: {ran.replies}"
    )
