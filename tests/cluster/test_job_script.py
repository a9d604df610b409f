"""slurm/job.sh with stand-ins for SLURM's commands: which ends send the job back to the queue?

tests/slurm/test_batch_script.py asks a real SLURM.
"""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cluster.sites import mini_site
from tests.cluster.test_batch import written

JOB = "71"
SRUN = '#!/bin/bash\ntouch "$STANDS/started"\nexec sleep "$(cat "$STANDS/seconds")"\n'
SCONTROL = """\
#!/bin/bash
echo "$*" >> "$STANDS/asked"
case "$*" in *"show job"*) cat "$STANDS/jobs" ;; esac
"""


class Job:
    """The batch script, running."""

    def __init__(self, folder: Path, *, jobs: str = "", retries: int = 3, seconds: int = 60) -> None:
        self.stands = folder / "stands"
        self.stands.mkdir()
        self.launch = folder / "launches" / "one"
        self.launch.mkdir(parents=True)
        self.attempt = self.launch / "attempts" / "0.0"
        for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
            (self.stands / name).write_text(text)
            (self.stands / name).chmod(0o755)
        (self.stands / "jobs").write_text(jobs)
        (self.stands / "seconds").write_text(str(seconds))
        slurm = {"SLURM_JOB_ID": JOB, "SLURM_JOB_NODELIST": "n[1-4]", "STANDS": str(self.stands)}
        path = f"{self.stands}:{os.environ['PATH']}"
        script = written(mini_site(f"root={folder}", f"batch.retries={retries}"))
        self.process = subprocess.Popen(
            ["bash", "-c", script],
            env=slurm | {"PATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        wait_for(self.stands / "started")

    def ask_to_save(self) -> None:
        self.process.send_signal(signal.SIGUSR1)
        wait_for(self.attempt / "stop")

    def terminate(self) -> str:
        """What it said, after TERM."""
        self.process.send_signal(signal.SIGTERM)
        return self.end()

    def end(self) -> str:
        """What it said."""
        said, _ = self.process.communicate(timeout=20)
        return said

    @property
    def is_requeued(self) -> bool:
        return f"requeue {JOB}" in (self.stands / "asked").read_text().splitlines()


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.02)


def listed(reason: str, job: str = JOB, state: str = "COMPLETING") -> str:
    """A line of `scontrol --oneliner show job`."""
    return f"JobId={job} ArrayJobId={JOB} JobName=x JobState={state} Reason={reason} Dependency=(null)\n"


def test_a_save_that_overruns_the_time_limit_comes_back(tmp_path: Path) -> None:
    job = Job(tmp_path, jobs=listed("TimeLimit"))
    job.ask_to_save()
    said = job.terminate()
    assert job.is_requeued, said
    assert "batch.save_before_s" in said


@pytest.mark.parametrize("jobs", [listed("None"), listed("None") + listed("TimeLimit", job="72"), ""])
def test_a_cancelled_job_does_not_come_back(tmp_path: Path, jobs: str) -> None:
    """Another task of its array may be out of time; SLURM may not answer."""
    job = Job(tmp_path, jobs=jobs)
    job.ask_to_save()
    said = job.terminate()
    assert not job.is_requeued
    assert "cancelled" in said


def test_a_stopped_job_that_overruns_does_not_come_back(tmp_path: Path) -> None:
    job = Job(tmp_path, jobs=listed("TimeLimit"))
    (job.launch / "no-requeue-0").touch()
    job.terminate()
    assert not job.is_requeued


def test_a_run_that_never_saves_in_time_does_not_come_back_for_ever(tmp_path: Path) -> None:
    job = Job(tmp_path, jobs=listed("TimeLimit"), retries=1)
    (job.launch / "failures-0").write_text("limit\n")
    job.terminate()
    assert not job.is_requeued


@pytest.mark.parametrize(("code", "comes_back"), [(0, False), (2, False), (75, True), (1, True)])
def test_the_runs_own_end_decides_without_a_signal(tmp_path: Path, code: int, comes_back: bool) -> None:
    job = Job(tmp_path, jobs=listed("None", state="RUNNING"), seconds=1)
    (job.attempt / "exit-code").write_text(str(code))
    job.end()
    assert (job.is_requeued, job.process.returncode) == (comes_back, code)


@pytest.mark.parametrize("code", [75, 143])
def test_a_cancel_that_the_step_hears_of_first_does_not_come_back(tmp_path: Path, code: int) -> None:
    """Its tasks on other nodes are ended a moment before the batch script gets its TERM."""
    job = Job(tmp_path, jobs=listed("None"), seconds=1)
    (job.attempt / "exit-code").write_text(str(code))
    said = job.end()
    assert not job.is_requeued
    assert "cancelled" in said


def test_a_time_limit_that_the_step_hears_of_first_is_called_by_its_name(tmp_path: Path) -> None:
    job = Job(tmp_path, jobs=listed("TimeLimit"), seconds=1)
    (job.attempt / "exit-code").write_text("143")
    said = job.end()
    assert job.is_requeued
    assert "batch.save_before_s" in said


def test_a_save_at_the_last_moment_is_no_failure(tmp_path: Path) -> None:
    job = Job(tmp_path, jobs=listed("TimeLimit"), seconds=1, retries=0)
    (job.attempt / "exit-code").write_text("75")
    job.end()
    assert job.is_requeued
    assert not (job.launch / "failures-0").exists()


@pytest.mark.parametrize(("code", "comes_back"), [(0, False), (2, False), (75, True)])
def test_a_run_that_has_ended_is_believed_though_its_step_lasts(
    tmp_path: Path, code: int, comes_back: bool
) -> None:
    """Its nodes are still stopping their servers when the time is over."""
    job = Job(tmp_path, jobs=listed("TimeLimit"), retries=0)
    (job.attempt / "exit-code").write_text(str(code))
    said = job.terminate()
    assert (job.is_requeued, job.process.returncode) == (comes_back, code), said
    assert not (job.launch / "failures-0").exists()


@pytest.mark.parametrize("state", ["RUNNING", "SIGNALING", "STOPPED"])
def test_a_saved_run_comes_back_whatever_signal_is_on_its_way(tmp_path: Path, state: str) -> None:
    job = Job(tmp_path, jobs=listed("None", state=state), seconds=1)
    (job.attempt / "exit-code").write_text("75")
    assert "back to the queue" in job.end()


def test_a_failure_of_which_slurm_knows_nothing_is_tried_again(tmp_path: Path) -> None:
    job = Job(tmp_path, jobs="", seconds=1)
    (job.attempt / "exit-code").write_text("1")
    job.end()
    assert job.is_requeued
