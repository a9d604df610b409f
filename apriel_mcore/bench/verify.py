"""How many answers a second can the judges grade on one core, and how long can one answer hold them up?

    NAME.per_s        verdicts a wall second, one process (code_warm: in its sandbox, which is up)
    NAME.per_cpu_s    verdicts a CPU second, sandboxes included: what a busy machine does not distort
    pool.math_int.per_s    the same integers through one worker of the pool
    adversarial.worst_s    the longest wall time that one of the hostile answers took through the pool
    adversarial.worst_cpu_s    the most CPU time that one of them took in the judge
    code.*                     verify_code.py: the sandboxes, cold and warm
    instruction_ifeval.*, logic_tasks.*    verify_kinds.py: real prompts, every logic task
    hostile.*, honest.*        verify_hostile.py: what honest answers notice of an attack

Medians over rounds that visit every domain in turn.
"""

import argparse
import asyncio
import itertools
import multiprocessing
import resource
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

from apriel_mcore.bench import verify_code, verify_hostile, verify_kinds
from apriel_mcore.config.schema import Verify
from apriel_mcore.errors import InputError
from apriel_mcore.types import Problem, Verdict
from apriel_mcore.verify.grade import VerifierPool
from apriel_mcore.verify.sandbox import open_sandbox
from apriel_mcore.verify.values import encode
from apriel_mcore.verify.worker import JUDGES

Job = tuple[dict[str, Any], str]


class Workload(NamedTuple):
    """What one domain's judge is measured on; every answer is right, so every check runs to its end."""

    verifier: str
    jobs: tuple[Job, ...]
    per_round: int


_THINKING = "<think>" + "Let me see, that is not it. " * 40 + "</think>"
_LATEX = (
    (r"\frac{\sqrt{3}}{2}", r"\frac12\sqrt{3}"),
    ("(x-1)^2", "x^2-2x+1"),
    (r"(-\infty,2]", r"x\le 2"),
    (r"2\pi", r"\pi\cdot 2"),
    (r"\{1,2,3\}", r"\{3,2,1\}"),
    (r"\sqrt{8}", r"2\sqrt{2}"),
)
_PARAGRAPH = " ".join(f"Sentence {number} says because in a few plain words." for number in range(20))
_CONSTRAINTS = (
    ("punctuation:no_comma", {}),
    ("keywords:existence", {"keywords": ["because"]}),
    ("length_constraints:number_words", {"num_words": 300, "relation": "less than"}),
)
_INTEGER = {"type": "integer"}
_ADD = {
    "name": "add",
    "parameters": {"type": "dict", "properties": {"a": _INTEGER, "b": _INTEGER}, "required": ["a", "b"]},
}
_DOUBLE = "```python\ndef double(x):\n    return 2 * x\n```"
HOSTILE = (
    r"9^{9^{9^9}}",
    "10^9!",
    r"\binom{10^9}{10^8}",
    r"\sum_{n=1}^{10^{12}} n^{n}",
    r"\prod_{n=1}^{10^{12}} n",
    "(" * 400 + "1" + ")" * 400,
    "{" * 400 + "1" + "}" * 400,
    "7^{" + "9" * 900 + "}",
    r"\int_0^1 e^{x^{x}} dx",
)


def workloads() -> dict[str, Workload]:
    """Domain by domain; names as in the printed keys."""
    boxed = [
        ({"answer": gold, "format": "boxed"}, rf"{_THINKING}\boxed{{{answer}}}") for gold, answer in _LATEX
    ]
    integers = [({"answer": str(n), "format": "boxed"}, rf"{_THINKING}\boxed{{{n}}}") for n in range(1000)]
    constraints = {"instructions": [{"kind": kind, "args": args} for kind, args in _CONSTRAINTS]}
    sums = {"functions": [_ADD], "answer": [{"add": {"a": [1], "b": [2]}}], "kind": "simple"}
    call = '<tool_calls>[{"name": "add", "arguments": {"a": 1, "b": 2}}]</tool_calls>'
    puzzle = {"task": "syllogism", "entry": {"question": "Is it?", "answer": "Yes", "metadata": {}}}
    mines = {"task": "minesweeper", "facts": {"current_mines": [[0, 1], [2, 2]]}}
    tests = [{"args": [encode(n)], "expected": encode(2 * n)} for n in range(5)]
    return {
        "math_int": Workload("math", tuple(integers), 2000),
        "math_latex": Workload("math", tuple(boxed), 120),
        "instruction": Workload("instruction", ((constraints, _PARAGRAPH),), 1000),
        "calls": Workload("calls", ((sums, call),), 4000),
        "logic": Workload("logic", ((puzzle, "Yes"),), 4000),
        "puzzles": Workload("puzzles", ((mines, "[(0, 1), (2, 2)]"),), 4000),
        "code_warm": Workload("code", (({"tests": tests, "entry_point": "double"}, _DOUBLE),), 100),
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `apriel bench verify`."""
    parser.add_argument("--hostile", type=int, default=48, help="hostile answers beside honest ones")
    parser.add_argument("--rounds", type=int, default=5, help="visits to every domain; medians over these")


def run(args: argparse.Namespace) -> dict[str, float | str]:
    """Verdicts a second of every judge, and the cost of hostile answers."""
    if args.rounds < 1:
        raise InputError(f"--rounds {args.rounds}: give a number above 0")
    numbers: dict[str, float | str] = {}
    numbers |= _judges_alone(args.rounds)
    numbers |= asyncio.run(_through_the_pool(args.rounds))
    numbers |= verify_kinds.measure()
    numbers |= _in_a_process_like_a_judges(verify_code.measure, args.rounds)
    numbers |= asyncio.run(verify_hostile.measure(args.hostile, list(_LATEX)))
    return numbers


def _in_a_process_like_a_judges(measure: Callable[[int], dict[str, float]], rounds: int) -> dict[str, float]:
    """A new and small one. This one holds torch, and every fork copies the page tables of half a gigabyte."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, rounds).result()


def _judges_alone(rounds: int) -> dict[str, float]:
    per_s, per_cpu_s = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
    loads = workloads()
    verifiers = {load.verifier: JUDGES[load.verifier](Verify()) for load in loads.values()}
    for verifier in verifiers.values():
        verifier.warm_up()
    for _ in range(rounds):
        for name, load in loads.items():
            wall, cpu = _time(verifiers[load.verifier].verify, load)
            per_s[name].append(load.per_round / wall)
            per_cpu_s[name].append(load.per_round / cpu)
    numbers = {f"{name}.per_s": statistics.median(values) for name, values in per_s.items()}
    numbers |= {f"{name}.per_cpu_s": statistics.median(values) for name, values in per_cpu_s.items()}
    numbers["adversarial.worst_cpu_s"] = max(
        _hostile_cpu_s(verifiers["math"].verify, answer) for answer in HOSTILE
    )
    return numbers


def _hostile_cpu_s(verify: Callable[[dict[str, Any], str], Verdict], answer: str) -> float:
    start = time.process_time()
    verify({"answer": "100", "format": "boxed"}, rf"\boxed{{{answer}}}")
    return time.process_time() - start


def _time(verify: Callable[[dict[str, Any], str], Verdict], load: Workload) -> tuple[float, float]:
    """(wall, CPU) seconds of one round, sandboxes included."""
    _expect_success(verify(*load.jobs[0]), load.verifier)
    wall, cpu = time.perf_counter(), _cpu_s()
    for reference, text in itertools.islice(itertools.cycle(load.jobs), load.per_round):
        _expect_success(verify(reference, text), load.verifier)
    elapsed = time.perf_counter() - wall
    if load.verifier == "code":
        open_sandbox("bwrap").close()  # the CPU time of its server counts once it has ended
    return elapsed, _cpu_s() - cpu


def _cpu_s() -> float:
    """Of this process and of the children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


async def _through_the_pool(rounds: int) -> dict[str, float]:
    load = workloads()["math_int"]
    async with VerifierPool(Verify(workers=1)) as pool:
        problems = [_problem(load.verifier, reference) for reference, _ in load.jobs]
        await pool.grade(problems[0], load.jobs[0][1])
        rates = []
        for _ in range(rounds):
            start = time.perf_counter()
            verdicts = await asyncio.gather(
                *(pool.grade(problem, text) for problem, (_, text) in zip(problems, load.jobs, strict=True))
            )
            rates.append(len(problems) / (time.perf_counter() - start))
            for verdict in verdicts:
                _expect_success(verdict, load.verifier)
        worst_s = max([await _hostile_s(pool, answer) for answer in HOSTILE])
    return {"pool.math_int.per_s": statistics.median(rates), "adversarial.worst_s": worst_s}


async def _hostile_s(pool: VerifierPool, answer: str) -> float:
    problem = _problem("math", {"answer": "100", "format": "boxed"})
    start = time.perf_counter()
    verdict = await pool.grade(problem, rf"\boxed{{{answer}}}")
    if verdict.success:
        raise InputError(f"the hostile answer {answer[:40]!r} was accepted")
    return time.perf_counter() - start


def _problem(verifier: str, reference: dict[str, Any]) -> Problem:
    return Problem(
        id="bench",
        domain=verifier,
        source="bench",
        messages=(),
        verifier=verifier,
        reference=reference,
        split_key="bench",
    )


def _expect_success(verdict: Verdict, verifier: str) -> None:
    """A bench of answers that fail early would flatter the judge."""
    if not verdict.success:
        raise InputError(f"{verifier}: the bench's own answer does not verify: {verdict}")
