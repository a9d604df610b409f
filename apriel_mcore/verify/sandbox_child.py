"""What runs inside the sandbox around a solution: it calls the solution and reports the values.

    job -> compile -> load -> call test 0, 1, ...  -> reply fd, one JSON line each

The server (sandbox_server.py) loads this file from its source, so it knows nothing of the package: standard
library only, nothing newer than Python 3.9. The solution shares the process and may do anything to it:
nothing here is secret, expected values never come in, and the parent takes a reply only as a claim.

Reply lines, all with the run's nonce:
    {"ready": true}                          confined, the solution's code has not been touched
    {"broken": text}                         it could not be confined: nothing was run
    {"compiled": false, "error": name}       the source is not Python
    {"loaded": false, "error": name}         the module's own statements failed, or the entry point is missing
    {"test": i, "value": tree}               what the call returned, in the form of values.py
    {"test": i, "error": name}               the call raised, or returned something that is not plain
    {"test": i, "stdout": text, "exit": n}   what the program printed; sent when it has ended
"""

from __future__ import annotations

import os
import resource
import sys
from _json import encode_basestring_ascii, make_encoder  # json itself is a fifth of a cold start
from types import CodeType, ModuleType

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing these is some percent of one
    from collections.abc import Callable
    from typing import Any, NoReturn

STACK_BYTES = 64 << 20


def json_of(tree: Any) -> str:
    """As json.dumps of a tree without cycles."""
    encoder = make_encoder(None, not_json, encode_basestring_ascii, None, ": ", ", ", False, False, True)
    return "".join(encoder(tree, 0))


def not_json(value: object) -> NoReturn:
    raise TypeError(f"{type(value).__name__} has no JSON")


class Replies:
    """The way back to the parent."""

    def __init__(self, fd: int, nonce: str) -> None:
        self.fd = fd
        self.nonce = nonce

    def send(self, **fields: Any) -> None:
        line = memoryview(json_of({"nonce": self.nonce, **fields}).encode() + b"\n")
        while line:
            line = line[os.write(self.fd, line) :]


def run(job: dict[str, Any], std_fds: tuple[int, ...], values: ModuleType, replies: Replies) -> None:
    """Compile and run; `std_fds` are the stdin and stdout of a program, empty for a function."""
    replies.send(ready=True)
    try:
        code = compile(job["source"], "<solution>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, OverflowError, MemoryError, RecursionError) as error:
        replies.send(compiled=False, error=type(error).__name__)
        # No atexit hooks and no waiting for the solution's threads, here and below: all replies are out.
        os._exit(1)
    if std_fds:
        stdin_fd, stdout_fd = std_fds
        run_as_main(code, stdin_fd, stdout_fd, replies)
    call_tests(code, job["entry_point"], job["inputs_N"], values, replies)
    os._exit(0)


def set_limits(limits: dict[str, int]) -> None:
    """Lower this process's limits for good.

    NPROC counts all tasks of the user, in bubblewrap of the user within the namespace: it is lowered only
    where that user is this sandbox's alone.
    """
    if limits["tasks"]:
        lower(resource.RLIMIT_NPROC, limits["tasks"])
    lower(resource.RLIMIT_CORE, 0)
    lower(resource.RLIMIT_NOFILE, limits["open_files"])
    lower(resource.RLIMIT_FSIZE, limits["file_bytes"])
    lower(resource.RLIMIT_AS, limits["memory_bytes"])
    # The soft limit raises SIGXCPU, which tells a busy loop from a crash; the hard one cannot be ignored.
    resource.setrlimit(resource.RLIMIT_CPU, (limits["cpu_s"], limits["cpu_s"] + 1))
    # Deep recursion is ordinary in contest solutions.
    _, hard = resource.getrlimit(resource.RLIMIT_STACK)
    room = STACK_BYTES if hard == resource.RLIM_INFINITY else min(STACK_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_STACK, (room, hard))


def lower(which: int, limit: int) -> None:
    _, hard = resource.getrlimit(which)
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(which, (limit, limit))


def silence() -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.close(null)


def load_module(name: str, code: CodeType) -> ModuleType:
    """Run a module's code under its own name; dataclasses and typing look it up in sys.modules."""
    module = ModuleType(name)
    sys.modules[name] = module
    exec(code, module.__dict__)
    return module


def call_tests(
    code: CodeType, entry_point: str, inputs_N: list[list[Any]], values: ModuleType, replies: Replies
) -> None:
    """Load the solution once, then call it with each test's arguments."""
    try:
        function = find_function(load_module("solution", code), entry_point)
    # Whatever model-written code raises, SystemExit included, is a failed load and nothing else.
    except BaseException as error:
        replies.send(loaded=False, error=type(error).__name__[:80])
        return
    for test, trees in enumerate(inputs_N):
        args = [values.decode(tree) for tree in trees]
        try:
            value = values.encode(function(*args))
        except BaseException as error:
            replies.send(test=test, error=type(error).__name__[:80])
        else:
            replies.send(test=test, value=value)


def find_function(module: ModuleType, entry_point: str) -> Callable[..., Any]:
    """A function `name`, a method `Class.name`, or `Solution.name` where no function `name` is defined.

    A method is called on a new instance each time.
    """
    names = vars(module)
    owner, _, name = entry_point.rpartition(".")
    if not owner and name not in names and "Solution" in names:
        owner = "Solution"
    if not owner:
        return names[name]
    return lambda *args: getattr(names[owner](), name)(*args)


def file_of(text: str) -> int:
    """A descriptor at the start of a file without a name that holds the text: a program's stdin."""
    fd = os.memfd_create("stdin")
    with open(fd, "wb", closefd=False) as stream:
        stream.write(text.encode())
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def text_in(fd: int) -> str:
    """The whole file: what a program printed."""
    os.lseek(fd, 0, os.SEEK_SET)
    with open(fd, "rb", closefd=False) as stream:
        return stream.read().decode(errors="replace")


def run_as_main(code: CodeType, stdin_fd: int, stdout_fd: int, replies: Replies) -> NoReturn:
    """Become the program: an uncaught exception or SystemExit ends this process as it ends an interpreter.

    The interpreter's normal end follows: it joins threads, runs atexit hooks and flushes stdout.
    """
    os.close(replies.fd)
    os.dup2(stdin_fd, 0)
    os.dup2(stdout_fd, 1)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 (open until the process ends)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.argv = ["solution.py"]
    load_module("__main__", code)
    sys.exit(0)
