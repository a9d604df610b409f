"""How many programs a second does each sandbox run, on one core, started for each or forked from a server?

code.BACKEND.cold_per_s     runs, each with a sandbox of its own from start to end
code.BACKEND.warm_per_s     runs on one sandbox
code.BACKEND.tests_per_s    tests of one job, in one process
... _per_cpu_s              the same for a CPU second, children included: what a busy machine does not distort
"""

import os
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import get_args

from apriel_mcore.errors import InputError
from apriel_mcore.verify.sandbox import Job, Sandbox, SandboxLimits, open_sandbox
from apriel_mcore.verify.sandbox_launch import Backend

_COLD, _WARM, _TESTS = 10, 100, 2000
_SOURCE = "def double(x):\n    return 2 * x"


def measure(rounds: int) -> dict[str, float]:
    """Medians over rounds; both backends must work here."""
    numbers: dict[str, float] = {}
    with one_core():
        for backend in get_args(Backend):
            open_sandbox(backend).close()
            for name, amount, work in (
                ("cold", _COLD, _cold),
                ("warm", _WARM, _warm),
                ("tests", _TESTS, _many_tests),
            ):
                times = [_time(work, backend) for _ in range(rounds)]
                numbers[f"code.{backend}.{name}_per_s"] = amount / statistics.median(
                    wall for wall, _ in times
                )
                numbers[f"code.{backend}.{name}_per_cpu_s"] = amount / statistics.median(
                    cpu for _, cpu in times
                )
    return numbers


@contextmanager
def one_core() -> Iterator[None]:
    """This process and what it starts share a core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _time(work: Callable[[Backend], None], backend: Backend) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), _cpu_s()
    work(backend)
    return time.perf_counter() - wall, _cpu_s() - cpu


def _cpu_s() -> float:
    """Of this process and of the children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _cold(backend: Backend) -> None:
    for _ in range(_COLD):
        sandbox = Sandbox(open_sandbox(backend).launcher)
        _run(sandbox, 1)
        sandbox.close()


def _warm(backend: Backend) -> None:
    sandbox = Sandbox(open_sandbox(backend).launcher)
    for _ in range(_WARM):
        _run(sandbox, 1)
    sandbox.close()


def _many_tests(backend: Backend) -> None:
    sandbox = Sandbox(open_sandbox(backend).launcher)
    _run(sandbox, _TESTS)
    sandbox.close()


def _run(sandbox: Sandbox, num_tests: int) -> None:
    job = Job(source=_SOURCE, entry_point="double", inputs_N=[[n] for n in range(num_tests)])
    ran = sandbox.run(job, SandboxLimits())
    values = [reply.get("value") for reply in ran.replies if "test" in reply]
    if values != [2 * n for n in range(num_tests)]:
        raise InputError(f"the sandbox {sandbox.launcher.backend} did not run the bench's own program: {ran}")
