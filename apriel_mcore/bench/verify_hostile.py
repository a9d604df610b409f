r"""What do hostile answers cost, and do honest ones wait for them?

hostile.count, hostile.worst_s    answers sent one after the other, and the longest that one took
hostile.worst_cpu_s               the most CPU that one took of its judge: beyond that, it waited for a core
honest.alone_p99_s                LaTeX answers through the pool, one after the other
honest.attacked_p99_s             the same while the hostile ones are judged
honest.p99_ratio                  the quotient
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from itertools import cycle

import psutil

from apriel_mcore.config.schema import Verify
from apriel_mcore.errors import InputError
from apriel_mcore.types import Problem
from apriel_mcore.verify.grade import VerifierPool

_GAP_S = 0.005
_ALONE = 1000


def hostile_answers(count: int, seed: int = 0) -> list[str]:
    """Towers, nesting, huge literals, and sums that nobody can sum; no two alike."""
    draw = random.Random(seed).randint
    kinds = (
        lambda: rf"{draw(2, 9)}^{{{draw(2, 9)}^{{{draw(2, 9)}^{draw(2, 9)}}}}}",
        lambda: f"10^{draw(5, 9)}!",
        lambda: rf"\binom{{10^{draw(7, 9)}}}{{10^{draw(5, 8)}}}",
        lambda: rf"\sum_{{n=1}}^{{10^{{{draw(9, 30)}}}}} n^{{n}}",
        lambda: rf"\prod_{{n=1}}^{{10^{{{draw(9, 30)}}}}} n",
        lambda: "(" * (depth := draw(50, 480)) + "1" + ")" * depth,
        lambda: "{" * (depth := draw(50, 480)) + "1" + "}" * depth,
        lambda: f"{draw(2, 9)}^{{" + str(draw(10**800, 10**900)) + "}",
        lambda: str(draw(10**900, 10**990)),
        lambda: rf"\int_0^1 e^{{x^{{x^{{{draw(2, 99)}}}}}}} dx",
        lambda: rf"\frac{{{draw(2, 9)}^{{{draw(10**6, 10**9)}}}}}{{{draw(2, 9)}^{{{draw(10**6, 10**9)}}}}}",
        lambda: r"\sqrt{" * (depth := draw(20, 120)) + str(draw(2, 99)) + "}" * depth,
    )
    return [kinds[number % len(kinds)]() for number in range(count)]


async def measure(count: int, honest: list[tuple[str, str]]) -> dict[str, float]:
    """`honest`: pairs of a gold answer and another spelling of it."""
    async with VerifierPool(Verify(workers=2)) as pool:
        await pool.warm_up(("math",))
        alone_s = [seconds async for seconds in _honest(pool, honest, asyncio.Event(), limit=_ALONE)]
        done = asyncio.Event()
        attack = asyncio.create_task(_attack(pool, hostile_answers(count), done))
        attacked_s = [seconds async for seconds in _honest(pool, honest, done, limit=10 * _ALONE)]
        costs_s = await attack
    alone_p99_s, attacked_p99_s = _p99(alone_s), _p99(attacked_s)
    walls_s, cpus_s = zip(*costs_s, strict=True)
    return {
        "hostile.count": float(len(costs_s)),
        "hostile.worst_s": max(walls_s),
        "hostile.worst_cpu_s": max(cpus_s),
        "hostile.mean_s": sum(walls_s) / len(costs_s),
        "honest.count": float(len(attacked_s)),
        "honest.alone_p99_s": alone_p99_s,
        "honest.attacked_p99_s": attacked_p99_s,
        "honest.p99_ratio": attacked_p99_s / alone_p99_s,
    }


async def _honest(
    pool: VerifierPool, pairs: list[tuple[str, str]], done: asyncio.Event, *, limit: int
) -> AsyncIterator[float]:
    """Seconds of each, until the attack is over or the limit is reached."""
    for number, (gold, answer) in enumerate(cycle(pairs)):
        if done.is_set() or number == limit:
            return
        start = time.perf_counter()
        verdict = await pool.grade(_problem(f"honest-{number}", gold), rf"\boxed{{{answer}}}")
        yield time.perf_counter() - start
        if not verdict.success:
            raise InputError(f"the bench's own answer {answer!r} does not verify: {verdict}")
        await asyncio.sleep(_GAP_S)


async def _attack(pool: VerifierPool, answers: list[str], done: asyncio.Event) -> list[tuple[float, float]]:
    """(wall, CPU) seconds of each."""
    costs_s: list[tuple[float, float]] = []
    for number, answer in enumerate(answers):
        start, cpu_s = time.perf_counter(), _slow_cpu_s()
        verdict = await pool.grade(_problem(f"hostile-{number}", "100"), rf"\boxed{{{answer}}}")
        costs_s.append((time.perf_counter() - start, _slow_cpu_s() - cpu_s))
        if verdict.success:
            raise InputError(f"the hostile answer {answer[:40]!r} was accepted")
    done.set()
    return costs_s


def _slow_cpu_s() -> float:
    """So far, of the slow worker: the one that yields to the others."""
    worker = max(psutil.Process().children(), key=psutil.Process.nice)
    return sum(worker.cpu_times()[:2])


def _problem(name: str, gold: str) -> Problem:
    return Problem(
        id=name,
        domain="math",
        source="bench",
        messages=(),
        verifier="math",
        reference={"answer": gold, "format": "boxed"},
        split_key=name,
    )


def _p99(seconds: list[float]) -> float:
    return sorted(seconds)[len(seconds) * 99 // 100]
