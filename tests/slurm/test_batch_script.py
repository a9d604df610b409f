"""The batch script on a real SLURM: what comes back to the queue, and what does not.

The processes on the nodes are stand-ins that count (stand_in.py); test_run.py has the real ones.
"""

import json
from pathlib import Path

import pytest

from tests.slurm.conftest import NUM_NODES, Cluster, Launched

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(300), pytest.mark.xdist_group("slurm-script")]
STAND_IN = Path(__file__).with_name("stand_in.py")


def launched(
    cluster: Cluster, name: str, *words: str, steps: int = 30, code: int = 0, seconds: float = 0.1
) -> Launched:
    """A run of stand-ins."""
    run = cluster.launch(name, "--on=code.kind=installed", *words, python=STAND_IN)
    plan = {"steps": steps, "seconds": seconds, "exit": code}
    (run.folder.path / "plan.json").write_text(json.dumps(plan))
    return run


def wait_for_steps(run: Launched, count: int, task: int = 0) -> None:
    run.wait(lambda: len(run.history(task)) > count, f"{count} steps")


def starts(run: Launched, task: int = 0) -> int:
    return sum(line.startswith("start") for line in run.history(task))


def wait_for_attempt(run: Launched, number: int, *, timeout_s: float = 90.0) -> None:
    """Attempt `number` (from 1) has begun to count."""
    run.wait(lambda: starts(run) >= number, f"attempt {number}", timeout_s=timeout_s)


def assert_counted_once(run: Launched, steps: int, task: int = 0) -> None:
    """Every step once, whatever happened in between."""
    counted = [line for line in run.history(task) if line.startswith("step")]
    assert counted == [f"step {number}" for number in range(1, steps + 1)]


def test_a_run_that_ends_ends_the_job_with_its_code(cluster: Cluster) -> None:
    good, bad = launched(cluster, "good", steps=5), launched(cluster, "bad", steps=3, code=2)
    good.wait_for_end()
    bad.wait_for_end()
    assert (good.final("JobState"), good.final("ExitCode")) == ("COMPLETED", "0:0")
    assert (bad.final("JobState"), bad.final("ExitCode")) == ("FAILED", "2:0")
    assert_counted_once(good, 5)
    assert good.num_attempts() == bad.num_attempts() == 1
    attempt = next(good.folder.attempts.iterdir())
    assert len(list(attempt.glob("here-*"))) == len(list(attempt.glob("node-*.log"))) == NUM_NODES


def test_a_failure_is_tried_again_as_often_as_the_cluster_says(cluster: Cluster) -> None:
    run = launched(cluster, "failing", "--on=batch.retries=1", steps=3, code=1)
    wait_for_attempt(run, 2)
    run.wait_for_end()
    assert (run.final("JobState"), run.final("ExitCode")) == ("FAILED", "1:0")
    assert (run.num_attempts(), starts(run)) == (2, 2)


def test_usr1_goes_back_to_the_queue_and_on_from_where_it_was(cluster: Cluster) -> None:
    run = launched(cluster, "signalled", steps=40)
    wait_for_steps(run, 5)
    cluster.slurm("scancel", "--batch", "--signal=USR1", run.job)
    wait_for_attempt(run, 2)
    run.wait_for_end()
    assert_counted_once(run, 40)
    assert run.final("JobState") == "COMPLETED"
    assert (run.num_attempts(), starts(run)) == (2, 2)
    assert run.said().count("attempt 0 of task 0") == run.said().count("attempt 1 of task 0") == 1


def test_a_cancelled_run_does_not_come_back(cluster: Cluster) -> None:
    run = launched(cluster, "cancelled", steps=10_000)
    wait_for_steps(run, 3)
    cluster.slurm("scancel", run.job)
    run.wait_for_end()
    assert run.final("JobState") == "CANCELLED"
    assert run.num_attempts() == 1
    assert no_processes_of(run)


def test_a_cancel_after_a_request_to_save_does_not_come_back_either(cluster: Cluster) -> None:
    """USR1 and TERM close to each other, as at a preemption that an impatient user ends."""
    run = launched(cluster, "both", steps=10_000, seconds=2.0)
    wait_for_steps(run, 1)
    cluster.slurm("scancel", "--batch", "--signal=USR1", run.job)
    cluster.slurm("scancel", run.job)
    run.wait_for_end()
    assert run.final("JobState") == "CANCELLED"
    assert run.num_attempts() == 1


def test_a_stop_saves_and_does_not_come_back(cluster: Cluster) -> None:
    run = launched(cluster, "stopped", steps=10_000)
    wait_for_steps(run, 3)
    done = cluster.apriel("stop", "stopped")
    assert done.returncode == 0, done.stderr
    run.wait_for_end()
    assert (run.folder.path / "state-0").exists()
    assert run.num_attempts() == 1
    assert "ended with 75" in cluster.apriel("status", "stopped").stdout


def test_a_partition_of_higher_priority_preempts_and_the_run_goes_on(cluster: Cluster) -> None:
    run = launched(cluster, "preempted", steps=60)
    wait_for_steps(run, 5)
    urgent = ["sbatch", "--parsable", "--partition=urgent", f"--nodes={NUM_NODES}", "--output=/dev/null"]
    other = cluster.slurm(*urgent, "--exclusive", "--wrap=sleep 3").strip()
    wait_for_attempt(run, 2)
    assert "JobState=COMPLETED" in cluster.slurm("scontrol", "--oneliner", "show", "job", other)
    run.wait_for_end()
    assert_counted_once(run, 60)
    assert (run.final("JobState"), run.num_attempts()) == ("COMPLETED", 2)


def test_the_time_limit_comes_with_a_signal_and_the_run_goes_on(cluster: Cluster) -> None:
    """SLURM counts limits in minutes, and may signal a minute early."""
    run = launched(cluster, "limited", "--on=batch.time=00:02:00", "--on=batch.save_before_s=90", steps=700)
    wait_for_attempt(run, 2, timeout_s=120)
    assert "USR1: save and stop" in run.said()
    run.wait_for_end(timeout_s=120)
    assert_counted_once(run, 700)
    assert run.final("JobState") == "COMPLETED"


def test_a_save_that_overruns_the_time_limit_goes_back_to_the_queue(cluster: Cluster) -> None:
    """The first attempt never looks whether it shall stop, the second is quick."""
    limit = ["--on=batch.time=00:01:00", "--on=batch.save_before_s=30"]
    run = launched(cluster, "overrun", *limit, steps=3, seconds=3600.0)
    run.wait(lambda: starts(run) == 1, "the first attempt")
    plan = {"steps": 3, "seconds": 0.1, "exit": 0}
    (run.folder.path / "plan.json").write_text(json.dumps(plan))
    wait_for_attempt(run, 2, timeout_s=200)
    assert "the time limit came before the run had saved" in run.said()
    run.wait_for_end()
    assert_counted_once(run, 3)
    assert (run.final("JobState"), run.num_attempts()) == ("COMPLETED", 2)


def test_seeds_are_tasks_of_one_array_that_requeue_alone(cluster: Cluster) -> None:
    run = launched(cluster, "array", "--seeds", "7", "8", steps=30)
    run.wait(lambda: len(run.history(0)) > 5, "the first task")
    cluster.slurm("scancel", "--batch", "--signal=USR1", f"{run.job}_0")
    run.wait_for_end(timeout_s=120)
    for task, attempts in ((0, 2), (1, 1)):
        assert_counted_once(run, 30, task)
        assert run.num_attempts(task) == attempts
    assert "task 1" in cluster.apriel("status", "array").stdout


def test_a_node_that_fails_sends_the_job_back_to_the_queue(cluster: Cluster) -> None:
    """SLURM itself requeues, without a word to the run."""
    run = launched(cluster, "node-lost", steps=60)
    wait_for_steps(run, 3)
    cluster.slurm("scontrol", "update", "nodename=n3", "state=down", "reason=test")
    try:
        run.wait(lambda: run.states() == ["PENDING"], "the way back to the queue")
    finally:
        cluster.slurm("scontrol", "update", "nodename=n3", "state=resume")
    wait_for_attempt(run, 2)
    run.wait_for_end()
    assert (run.final("JobState"), run.num_attempts()) == ("COMPLETED", 2)


def no_processes_of(run: Launched) -> bool:
    """No process still has the launch in its command line."""
    found = [path for path in Path("/proc").glob("[0-9]*/cmdline") if str(run.folder.path) in read(path)]
    return not found


def read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
