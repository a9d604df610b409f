"""The main job on real engines and the real model: train, be stopped, be killed, resume, finish."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from apriel_mcore.evaluation import result
from apriel_mcore.obs.runlog import read_events
from apriel_mcore.obs.trained import read_groups
from apriel_mcore.rundir import RunDir

QUICKSTART = Path(__file__).parents[2] / "recipes" / "quickstart.toml"
APRIEL = [sys.executable, "-m", "apriel_mcore.cli"]
SHORT = [
    str(QUICKSTART),
    "train.num_steps=5",
    "train.groups_per_step=4",
    "rollout.group_size=4",
    "checkpoint.every=2",
    "eval.problems_per_domain=2",
    "eval.every=0",
]
START_LIMIT_S = 420.0

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]


class Job:
    """`apriel train` as a user starts it."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.process = subprocess.Popen(
            [*APRIEL, "train", *SHORT, "--run-dir", str(run_dir)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait_for(self, what: str, happened: Callable[[list[dict]], bool]) -> None:
        """Until the run's events satisfy the predicate."""
        deadline = time.monotonic() + START_LIMIT_S
        while not happened(read_events(self.run_dir / "events.jsonl")):
            assert self.process.poll() is None, self.end()[1]
            assert time.monotonic() < deadline, f"{what}: not within {START_LIMIT_S} s"
            time.sleep(0.1)

    def end(self) -> tuple[int, str]:
        """Exit status and what was printed."""
        output, _ = self.process.communicate(timeout=START_LIMIT_S)
        return self.process.returncode, output


def processes_of(run_dir: Path) -> list[psutil.Process]:
    """Everything alive that was started for this run, told by its command line or open log."""
    mine = []
    for process in psutil.process_iter(["cmdline"]):
        if process.pid != os.getpid() and str(run_dir) in " ".join(process.info["cmdline"] or []):
            mine += [process, *process.children(recursive=True)]
    return mine


def steps_of(run_dir: Path) -> list[int]:
    return [event["step"] for event in read_events(run_dir / "events.jsonl") if event["event"] == "step"]


def reached(step: int) -> Callable[[list[dict]], bool]:
    return lambda events: any(event["event"] == "step" and event["step"] >= step for event in events)


def serving_attempts(events: list[dict]) -> int:
    """Attempts that got as far as training; lines that a resume took back do not count twice."""
    return sum(event.get("message") == "publishing the first weights" for event in events)


def assert_all_gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=30)
    assert not alive, [process.cmdline() for process in alive if process.is_running()]


def test_ctrl_c_while_the_engines_start_leaves_nothing(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    job = Job(run_dir)
    job.wait_for("the start", lambda events: any(event["event"] == "data" for event in events))
    family = processes_of(run_dir)
    assert len(family) >= 4
    job.process.send_signal(signal.SIGINT)
    status, output = job.end()
    assert status == 1
    assert "SIGINT" in output
    assert_all_gone(family)
    assert not list(Path("/dev/shm").glob(f"apriel-{RunDir(run_dir).digest}*"))


def test_stop_kill_resume_finish(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"

    job = Job(run_dir)
    job.wait_for("first step", reached(1))
    family = [process for process in processes_of(run_dir) if process.is_running()]
    job.process.send_signal(signal.SIGUSR1)
    status, output = job.end()
    assert status == 75, output
    assert_all_gone(family)
    stopped_at = max(steps_of(run_dir))
    assert (run_dir / "checkpoints" / f"step_{stopped_at:06d}").is_dir()

    job = Job(run_dir)
    job.wait_for("a step after the resume", reached(min(3, stopped_at + 1)))
    rank = next(p for p in processes_of(run_dir) if "-m apriel_mcore.train" in " ".join(p.cmdline()))
    family = processes_of(run_dir)
    before = read_groups(run_dir / "rollouts" / f"step_{max(steps_of(run_dir)):06d}.jsonl.zst")
    killed_after = max(steps_of(run_dir))
    rank.kill()
    status, output = job.end()
    assert status == 1, output
    assert_all_gone(family)

    attempts = serving_attempts(read_events(run_dir / "events.jsonl"))
    job = Job(run_dir)
    job.wait_for("training again", lambda events: serving_attempts(events) > attempts)
    family = processes_of(run_dir)
    server = next(
        p for p in family if "vllm.entrypoints" in " ".join(p.cmdline()) and "guard" not in str(p.cmdline())
    )
    server.kill()
    status, output = job.end()
    assert status == 0, output
    assert_all_gone(family)
    events = read_events(run_dir / "events.jsonl")
    assert steps_of(run_dir) == [1, 2, 3, 4, 5]
    after = read_groups(run_dir / "rollouts" / f"step_{killed_after:06d}.jsonl.zst")
    assert after == before, "a recorded batch is trained again as it was"
    last = [event for event in events if event["event"] == "step"][-1]
    assert sum(abs(last[f"trained_share.{d}"] - last[f"target_share.{d}"]) for d in ("math", "calls")) < 0.15
    for step in (event for event in events if event["event"] == "step"):
        # Behind by a version, it is also what training changed.
        assert step["logprob_abs_diff"] <= (0.06 if step["lag_mean"] == 0 else 0.3), step
    receipts = [json.loads(line) for line in (run_dir / "receipts.jsonl").read_text().splitlines()]
    assert max(receipt["version"] for receipt in receipts) == 5
    again = [receipt["digest"] for receipt in receipts if receipt["version"] == killed_after]
    assert len(again) >= 2 and len(set(again)) == 1, "and gives the same weights, to the bit"
    assert last["feed.pool.restarts"] == 1.0
    assert "report" in output
    assert (run_dir / "report.html").stat().st_size > 5_000

    attempts = RunDir(run_dir).attempts()
    status, output = Job(run_dir).end()
    assert status == 0 and "finished; nothing was started" in output, output
    assert RunDir(run_dir).attempts() == attempts

    assert_evaluated(run_dir, tmp_path / "evals")


def assert_evaluated(run_dir: Path, out: Path) -> None:
    """The last checkpoint at two budgets; killed once in the middle, and then on record."""
    command = [*APRIEL, "eval", *SHORT, "--checkpoint", str(run_dir / "checkpoints" / "step_000005")]
    command += ["--budgets", "4", "24", "--samples", "4", "--force-answer", "--out", str(out)]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + START_LIMIT_S
    while not any(path.stat().st_size for path in (out / "generations").glob("*.jsonl")):
        assert first.poll() is None, first.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    family = psutil.Process(first.pid).children(recursive=True)
    first.kill()
    first.communicate()
    assert_all_gone(family)

    finished = subprocess.run(command, capture_output=True, text=True, timeout=START_LIMIT_S)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    found = result.read(out / "run-step_000005.json")
    assert len(found.tasks) == 5
    assert all(point.judged_P == [4, 4] for task in found.tasks for point in task.points)
    assert not (out / "models" / found.subject.digest[:16]).exists()

    again = subprocess.run(command, capture_output=True, text=True, timeout=START_LIMIT_S)
    assert again.returncode == 0, again.stdout + again.stderr
    repeated = result.read(out / "run-step_000005.json")
    assert (repeated.generated, repeated.tasks) == (0, found.tasks)
