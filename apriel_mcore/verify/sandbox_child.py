"""What runs inside the sandbox: the trusted runner that calls a solution and reports the values.

    request fd -> limits -> compile -> load -> call test 0, 1, ...  -> reply fd, one JSON line each

It is started as `python -I -S -c <this file> REQUEST_FD REPLY_FD`, so it knows nothing of the package:
standard library only, nothing newer than Python 3.9. The solution shares the process and may do anything to
it: nothing here is secret, expected values never come in, and the parent takes a reply only as a claim.

Reply lines, all with the run's nonce:
    {"ready": true}                          limits are set, the solution's code has not been touched
    {"compiled": false, "error": name}       the source is not Python
    {"loaded": false, "error": name}         the module's own statements failed, or the entry point is missing
    {"test": i, "value": tree}               what the call returned, in the form of values.py
    {"test": i, "stdout": text, "exit": n}   what the program printed
    {"test": i, "error": name}               the call raised, or returned something that is not plain
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable
from os import waitstatus_to_exitcode  # Python 3.9: an older one fails here, before it can grade anything
from types import CodeType, ModuleType
from typing import Any, NoReturn

STACK_BYTES = 64 << 20


class Replies:
    """The way back to the parent."""

    def __init__(self, fd: int, nonce: str) -> None:
        self.fd = fd
        self.nonce = nonce

    def send(self, **fields: Any) -> None:
        line = memoryview(json.dumps({"nonce": self.nonce, **fields}).encode() + b"\n")
        while line:
            line = line[os.write(self.fd, line) :]


def main() -> None:
    request_fd, reply_fd = int(sys.argv[1]), int(sys.argv[2])
    with open(request_fd, "rb") as stream:
        request = json.load(stream)
    set_limits(request["limits"])
    values = load_module("values", compile(request["codec"], "<values>", "exec", dont_inherit=True))
    replies = Replies(reply_fd, request["nonce"])
    replies.send(ready=True)
    # Until here the parent reads our own errors; what the solution prints is nobody's business.
    silence()
    try:
        code = compile(request["source"], "<solution>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, OverflowError, MemoryError, RecursionError) as error:
        replies.send(compiled=False, error=type(error).__name__)
    else:
        if request["entry_point"]:
            call_tests(code, request["entry_point"], request["inputs_N"], values, replies)
        else:
            run_programs(code, request["inputs_N"], replies)
    # No atexit hooks and no waiting for the solution's threads: all replies are out.
    os._exit(0)


def set_limits(limits: dict[str, int]) -> None:
    """Lower this process and its children for good.

    NPROC counts all processes of the uid within the user namespace: lowered here, after the namespace exists,
    it counts this sandbox only; lowered before the launcher it would count every other sandbox too.
    """
    if limits["processes"]:
        lower(resource.RLIMIT_NPROC, limits["processes"])
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


def run_programs(code: CodeType, inputs_N: list[str], replies: Replies) -> None:
    """Run the solution as `__main__` once for each test's standard input, each in a fork of this process."""
    for test, stdin in enumerate(inputs_N):
        stdin_fd = os.memfd_create("stdin")
        stdout_fd = os.memfd_create("stdout")
        os.write(stdin_fd, stdin.encode())
        os.lseek(stdin_fd, 0, os.SEEK_SET)
        pid = os.fork()
        if pid == 0:
            run_as_main(code, stdin_fd, stdout_fd, replies)
        _, status = os.waitpid(pid, 0)
        os.lseek(stdout_fd, 0, os.SEEK_SET)
        with open(stdout_fd, "rb") as stream:
            printed = stream.read().decode(errors="replace")
        os.close(stdin_fd)
        replies.send(test=test, stdout=printed, exit=waitstatus_to_exitcode(status))
        if status != 0:  # one failure settles the verdict, and a loop would burn its limit again in each test
            return


def run_as_main(code: CodeType, stdin_fd: int, stdout_fd: int, replies: Replies) -> NoReturn:
    """Become the program: an uncaught exception or SystemExit ends the fork as it would end an interpreter.

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


if __name__ == "__main__":
    main()
