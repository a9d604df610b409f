"""The pool: honest jobs get verdicts; judges that hang, crash or raise are killed, counted, never scored."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from apriel_mcore.config.schema import Verify
from apriel_mcore.errors import InputError, Starved, VerifierError
from apriel_mcore.types import Problem
from apriel_mcore.verify.grade import Counts, VerifierPool
from apriel_mcore.verify.values import encode

HOSTILE = (sys.executable, str(Path(__file__).with_name("hostile_worker.py")))


def problem(verifier: str, reference: dict[str, Any]) -> Problem:
    return Problem(
        id="p",
        domain=f"{verifier}-domain",
        source="test",
        messages=(),
        verifier=verifier,
        reference=reference,
        split_key="p",
    )


def hostile(do: str) -> Problem:
    return problem("hostile", {"do": do})


def in_pool[T](
    story: Callable[[VerifierPool], Awaitable[T]],
    *,
    workers: int = 1,
    deadline_s: float = 10.0,
    jobs_per_worker: int = 1000,
) -> T:
    async def run() -> T:
        config = Verify(
            workers=workers, deadline_s=deadline_s, code_cpu_s=0.3, jobs_per_worker=jobs_per_worker
        )
        async with VerifierPool(config, program=HOSTILE) as pool:
            return await story(pool)

    return asyncio.run(run())


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def pid_of(pool: VerifierPool) -> int:
    return int((await pool.grade(hostile("pid"), "")).detail)


def test_verdicts_of_several_verifiers() -> None:
    async def story(pool: VerifierPool) -> None:
        number = problem("math", {"answer": "12", "format": "number"})
        assert (await pool.grade(number, "12")).success
        assert (await pool.grade(number, "13")).status == "wrong"
        rules = problem("instruction", {"instructions": [{"kind": "punctuation:no_comma"}]})
        assert (await pool.grade(rules, "fine")).success
        assert pool.counts() == {
            "math-domain": Counts(graded=2),
            "instruction-domain": Counts(graded=1),
        }

    in_pool(story)


def test_self_check_refuses_a_bad_problem_by_name() -> None:
    async def story(pool: VerifierPool) -> None:
        await pool.self_check(problem("math", {"answer": "12", "format": "number"}))
        with pytest.raises(InputError, match=r"problem p \(test, verifier math\).*answer"):
            await pool.self_check(problem("math", {"answer": "", "format": "boxed"}))
        with pytest.raises(InputError, match="gold answer does not verify"):
            await pool.self_check(problem("math", {"answer": "12", "format": "number", "gold": "13"}))
        with pytest.raises(InputError, match="unknown verifier 'taste'"):
            await pool.self_check(problem("taste", {}))
        assert pool.counts().get("math-domain", Counts()).crashed == 0

    in_pool(story)


def test_code_runs_in_its_sandbox_and_its_gold_is_checked() -> None:
    tests = [{"args": [encode(n)], "expected": encode(2 * n)} for n in (1, 2)]
    reference = {"tests": tests, "entry_point": "double", "bare": True}

    async def story(pool: VerifierPool) -> None:
        await pool.self_check(problem("code", {**reference, "gold": "def double(x): return x + x"}))
        with pytest.raises(InputError, match="gold answer does not verify"):
            await pool.self_check(problem("code", {**reference, "gold": "def double(x): return 2"}))
        verdict = await pool.grade(problem("code", reference), "def double(x):\n    while True: pass")
        assert verdict.status == "timeout"
        assert pool.counts()["code-domain"].graded == 1

    in_pool(story, deadline_s=20)


def test_a_hanging_judge_is_killed_while_honest_jobs_proceed() -> None:
    async def story(pool: VerifierPool) -> None:
        await asyncio.gather(pid_of(pool), pid_of(pool))  # both workers are up
        start = time.monotonic()
        stuck = asyncio.create_task(pool.grade(hostile("hang"), ""))
        verdicts = await asyncio.gather(*(pool.grade(hostile("echo"), str(n)) for n in range(50)))
        assert [verdict.detail for verdict in verdicts] == [str(n) for n in range(50)]
        assert not stuck.done(), "honest jobs waited for the hanging one"
        with pytest.raises(VerifierError, match="deadline"):
            await stuck
        assert time.monotonic() - start < 3.0 + 3.0
        assert pool.counts()["hostile-domain"] == Counts(graded=52, timed_out=1, lost=1)
        assert (await pool.grade(hostile("echo"), "again")).detail == "again"

    in_pool(story, workers=2, deadline_s=3.0)


@pytest.mark.parametrize(
    ("do", "message"),
    [("exit", "status 3"), ("raise", "broken judge"), ("eat", "Memory"), ("surrogate", "UnicodeEncode")],
)
def test_a_broken_judge_is_counted_and_never_scored(do: str, message: str) -> None:
    async def story(pool: VerifierPool) -> None:
        with pytest.raises(VerifierError, match=message):
            await pool.grade(hostile(do), "")
        assert pool.counts() == {"hostile-domain": Counts(crashed=2, retried=1, lost=1)}
        assert (await pool.grade(hostile("echo"), "next")).detail == "next"

    in_pool(story)


def test_a_starved_solution_is_asked_again() -> None:
    async def story(pool: VerifierPool) -> None:
        assert (await pool.grade(hostile("starve once"), "x")).detail == "fine now"
        with pytest.raises(Starved, match="busy"):
            await pool.grade(hostile("starve"), "")
        assert pool.counts() == {"hostile-domain": Counts(graded=1, starved=3, retried=2, lost=1)}

    in_pool(story)


def test_a_slow_problem_moves_to_slow_workers_and_back() -> None:
    async def story(pool: VerifierPool) -> None:
        here = os.getpriority(os.PRIO_PROCESS, 0)
        nice = [int((await pool.grade(hostile("sleep"), "")).detail) - here for _ in range(2)]
        assert nice == [0, min(10, 19 - here)]
        for _ in range(2):
            await pool.grade(hostile("echo"), "")  # the same problem, quick: the first one there, then back
        assert int((await pool.grade(hostile("sleep"), "")).detail) == here

    in_pool(story)


def test_costly_answers_never_hold_all_workers() -> None:
    async def story(pool: VerifierPool) -> None:
        await asyncio.gather(*(pool.grade(hostile("sleep"), "") for _ in range(3)))
        slow = [asyncio.create_task(pool.grade(hostile("sleep"), "")) for _ in range(6)]
        await asyncio.sleep(0)
        quick = msgspec.structs.replace(hostile("echo"), id="quick", domain="quick")
        for _ in range(20):
            await pool.grade(quick, "")
        assert sum(task.done() for task in slow) < 6, "the quick ones did not wait for the slow ones"
        assert pool.metrics()["queue"] > 0
        await asyncio.gather(*slow)
        metrics = pool.metrics()
        assert metrics["queue"] == 0
        assert metrics["quick.p99_s"] < 0.3 < metrics["hostile-domain.p99_s"]
        assert metrics["quick.graded"] == 20

    in_pool(story, workers=2)


def test_a_tower_is_unparsable_within_the_soft_limit() -> None:
    async def story(pool: VerifierPool) -> None:
        gold = problem("math", {"answer": "7", "format": "boxed"})
        await pool.self_check(gold)
        start = time.monotonic()
        verdict = await pool.grade(gold, r"\boxed{9^{9^{9^9}}}")
        assert verdict.status == "unparsable"
        assert time.monotonic() - start < 8, "the soft limit, well before the pool's deadline"

    in_pool(story)


def test_what_libraries_print_does_not_reach_the_replies() -> None:
    assert in_pool(lambda pool: pool.grade(hostile("print"), "quiet")).detail == "quiet"


def test_judges_do_not_load_the_engines() -> None:
    assert in_pool(lambda pool: pool.grade(hostile("modules"), ""), deadline_s=60).detail == "loaded []"


def test_secrets_stay_in_the_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APRIEL_TEST_SECRET", "token")
    assert in_pool(lambda pool: pool.grade(hostile("environ"), "")).detail == "unknown"


def test_workers_are_recycled_and_nobody_waits_for_their_successors() -> None:
    async def story(pool: VerifierPool) -> list[int]:
        pids: list[int] = []
        while len(set(pids)) < 3:
            pids.append(await asyncio.wait_for(pid_of(pool), 30.0))
            await asyncio.sleep(0.01)
        assert not any(is_running(pid) for pid in set(pids) - {pids[-1]})
        return pids

    first, second, *_ = pids = in_pool(story, jobs_per_worker=2)
    assert first == second
    assert pids == sorted(pids, key=[*dict.fromkeys(pids)].index), "none comes back"


def test_successors_come_one_at_a_time_and_load_at_a_low_priority() -> None:
    others = {child.pid for child in psutil.Process().children()}
    here = os.getpriority(os.PRIO_PROCESS, 0)

    async def story(pool: VerifierPool) -> None:
        for _ in range(2):
            await asyncio.gather(pid_of(pool), pid_of(pool))  # each of the two, up to its share
        numbers: list[int] = []
        said: list[str] = []
        async with asyncio.timeout(30.0):
            while len(set(said)) < 2:
                numbers.append(len({child.pid for child in psutil.Process().children()} - others))
                said.append((await pool.grade(hostile("priorities"), "")).detail)
                await asyncio.sleep(0.01)
        assert max(numbers[:2]) == 3, "both had done their share"
        assert set(said) == {f"{here} {here}", f"{min(here + 10, 19)} {here}"}, "judges at their own priority"

    in_pool(story, workers=2, jobs_per_worker=2)


def test_a_pool_that_ends_takes_successors_with_it() -> None:
    others = {child.pid for child in psutil.Process().children()}

    async def story(pool: VerifierPool) -> set[int]:
        for _ in range(2):
            await pid_of(pool)
        await asyncio.sleep(0.05)
        children = {child.pid for child in psutil.Process().children()} - others
        assert len(children) == 2
        return children

    assert not any(is_running(pid) for pid in in_pool(story, jobs_per_worker=2))


def test_cancelled_jobs_leave_no_stale_reply() -> None:
    async def story(pool: VerifierPool) -> None:
        before = await pid_of(pool)
        task = asyncio.create_task(pool.grade(hostile("hang"), ""))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not is_running(before)
        assert (await pool.grade(hostile("echo"), "fresh")).detail == "fresh"

    in_pool(story)


def test_no_process_is_left_behind() -> None:
    async def story(pool: VerifierPool) -> list[int]:
        return list(await asyncio.gather(*(pid_of(pool) for _ in range(2))))

    assert not any(is_running(pid) for pid in in_pool(story, workers=2))


def test_workers_die_with_their_parent() -> None:
    parent = subprocess.Popen([sys.executable, "-c", _PARENT, *HOSTILE], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    assert is_running(worker)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    limit = time.monotonic() + 5
    while is_running(worker) and time.monotonic() < limit:
        time.sleep(0.02)
    assert not is_running(worker)


_PARENT = """
import asyncio, sys
from apriel_mcore.config.schema import Verify
from apriel_mcore.types import Problem
from apriel_mcore.verify.grade import VerifierPool

problem = Problem(id="p", domain="d", source="s", messages=(), verifier="hostile",
                  reference={"do": "pid"}, split_key="p")
hang = Problem(id="p", domain="d", source="s", messages=(), verifier="hostile",
               reference={"do": "hang"}, split_key="p")

async def main():
    async with VerifierPool(Verify(workers=1, deadline_s=60.0), program=tuple(sys.argv[1:])) as pool:
        print((await pool.grade(problem, "")).detail, flush=True)
        await pool.grade(hang, "")

asyncio.run(main())
"""
