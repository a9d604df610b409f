"""What a service is asked to run: the runner on the files beside this one, its reply lines printed on stdout.

A function's tests are called in this process. Each test of a program is a fork, under this process's limits;
the service's own time limit covers them all.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from types import ModuleType


def load(name: str) -> ModuleType:
    module = ModuleType(name)
    sys.modules[name] = module
    with open(name, encoding="utf-8") as stream:
        exec(compile(stream.read(), f"<{name}>", "exec", dont_inherit=True), module.__dict__)
    return module


def main() -> None:
    values, runner = load("codec"), load("runner")
    with open("request.json", encoding="utf-8") as stream:
        request = json.load(stream)
    replies = runner.Replies(os.dup(1), request["nonce"])
    runner.set_limits(request["limits"])
    runner.silence()
    if request["entry_point"]:
        # In a fork, so that what ends the solution does not look like a failure of the service.
        pid = os.fork()
        if pid == 0:
            runner.run(request, (), values, replies)
        _, status = os.waitpid(pid, 0)
        replies.send(ending=ending_of(status))
        return
    for test, text in enumerate(request["inputs_N"]):
        stdout_fd = os.memfd_create("stdout")
        pid = os.fork()
        if pid == 0:
            runner.run(request, (runner.file_of(text), stdout_fd), values, replies)
        _, status = os.waitpid(pid, 0)
        exit_code, ending = os.waitstatus_to_exitcode(status), ending_of(status)
        replies.send(test=test, stdout=runner.text_in(stdout_fd), exit=exit_code, ending=ending)
        os.close(stdout_fd)
        if status != 0:
            return


def ending_of(status: int) -> str:
    by_limit = os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL)
    return "cpu" if by_limit else "exit"


if __name__ == "__main__":
    main()
