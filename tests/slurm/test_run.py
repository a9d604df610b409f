"""A real run as a job of four nodes: two pipeline stages, two vLLM servers, and what a cluster does to it."""

from pathlib import Path

import pytest

from apriel_mcore.obs.runlog import read_events
from apriel_mcore.obs.trained import read_groups
from apriel_mcore.rundir import RunDir
from tests.slurm.conftest import NUM_NODES, ROOT, Cluster, Launched

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(1800), pytest.mark.xdist_group("slurm-run")]
PYTHON = ROOT / ".venv" / "bin" / "python"
NUM_STEPS = 12
SHORT = [
    f"train.num_steps={NUM_STEPS}",
    "train.groups_per_step=4",
    "checkpoint.every=2",
    "eval.problems_per_domain=2",
]
START_S = 600.0


def run_dir_of(cluster: Cluster, name: str) -> RunDir:
    return RunDir(cluster.root / "runs" / name)


def steps_of(run_dir: RunDir) -> list[int]:
    return [event["step"] for event in read_events(run_dir.events) if event["event"] == "step"]


def exit_codes(run: Launched) -> list[str]:
    return [path.read_text() for path in sorted(run.folder.attempts.glob("0.*/exit-code"))]


def processes_of(job: str) -> list[str]:
    """Command lines of what still runs with the job's environment."""
    found: list[str] = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if f"SLURM_JOB_ID={job}\0".encode() in (path / "environ").read_bytes():
                found.append((path / "cmdline").read_text().replace("\0", " ")[:200])
        except OSError:  # it ended, or is not ours to look at
            continue
    return found


def test_preempted_and_out_of_time_a_run_comes_to_its_end(cluster: Cluster) -> None:
    run = cluster.launch("real", *SHORT, "--on=batch.save_before_s=120", python=PYTHON)
    run_dir = run_dir_of(cluster, "real")
    run.wait(lambda: 1 in steps_of(run_dir), "the first step", timeout_s=START_S)

    urgent = ["sbatch", "--partition=urgent", f"--nodes={NUM_NODES}", "--exclusive", "--output=/dev/null"]
    cluster.slurm(*urgent, "--wrap=true")
    run.wait(lambda: exit_codes(run) == ["75"], "the save at the preemption", timeout_s=120)
    saved = max(int(path.name.removeprefix("step_")) for path in run_dir.checkpoints.glob("step_??????"))
    run.wait(lambda: saved + 1 in steps_of(run_dir), "a step of the second attempt", timeout_s=START_S)

    set_limit(cluster, run, minutes_from_now=2)
    run.wait(lambda: exit_codes(run) == ["75", "75"], "the save before the limit", timeout_s=240)
    run.wait(lambda: run.num_attempts() == 3, "the third attempt", timeout_s=120)
    set_limit(cluster, run, minutes_from_now=30)
    run.wait_for_end(timeout_s=START_S)

    assert run.final("JobState") == "COMPLETED", run.said()
    assert exit_codes(run) == ["75", "75", "0"]
    assert steps_of(run_dir) == list(range(1, NUM_STEPS + 1))
    trained = [group.id for path in sorted(run_dir.rollouts.glob("step_*")) for group in read_groups(path)]
    assert len(trained) == len(set(trained)) == NUM_STEPS * 4
    for process in ("launcher", "launcher-node1", "trainer-rank0", "trainer-rank1"):
        assert [run_dir.log(process, attempt).exists() for attempt in (1, 2, 3)] == [True] * 3, process
    assert run_dir.report.exists()
    run.wait(lambda: not processes_of(run.job), "the end of every process")


def test_cancelled_while_the_servers_start_it_leaves_nothing_and_does_not_come_back(cluster: Cluster) -> None:
    run = cluster.launch("gone", *SHORT, python=PYTHON)
    logs = run_dir_of(cluster, "gone").logs
    run.wait(lambda: len(list(logs.glob("server-*.log"))) == 2, "the servers", timeout_s=120)
    assert processes_of(run.job)

    # A request to save is heard although there is nothing to save yet.
    cluster.slurm("scancel", "--batch", "--signal=USR1", run.job)
    run.wait(lambda: exit_codes(run) == ["75"], "the end of the first attempt", timeout_s=120)
    run.wait(lambda: len(list(logs.glob("server-*.log"))) == 4, "the servers again", timeout_s=180)

    cluster.slurm("scancel", run.job)
    run.wait_for_end(timeout_s=120)
    assert run.final("JobState") == "CANCELLED"
    run.wait(lambda: not processes_of(run.job), "the end of every process")
    assert run.num_attempts() == 2


def test_a_node_of_judges_serves_a_whole_run(cluster: Cluster) -> None:
    two_steps = [*SHORT, "train.num_steps=2", "rollout.servers.count=1"]
    run = cluster.launch("judged", *two_steps, "--on=verifier_nodes=1", python=PYTHON)
    run_dir = run_dir_of(cluster, "judged")
    run.wait(lambda: 1 in steps_of(run_dir), "the first step", timeout_s=START_S)
    pool = cluster.apriel("pool", "list", str(run_dir.root))
    assert "127.0.0.1:" in pool.stdout and " serving " in pool.stdout, pool.stdout + pool.stderr
    run.wait_for_end(timeout_s=START_S)
    assert run.final("JobState") == "COMPLETED", run.said()
    assert steps_of(run_dir) == [1, 2]
    assert "judging on" in run_dir.log("judges-0", 1).read_text()
    run.wait(lambda: not processes_of(run.job), "the end of every process")


def test_a_recipe_that_cannot_run_ends_with_2_on_the_first_node(cluster: Cluster) -> None:
    """What only the cluster can know, as a missing file, is found before any server starts."""
    source = "domains.math.sources.sums"
    missing = [f"{source}={{kind='jsonl', path='/nowhere.jsonl'}}"]
    run = cluster.launch("wrong", *SHORT, *missing, python=PYTHON)
    run.wait_for_end(timeout_s=120)
    assert run.final("ExitCode") == "2:0", run.said()
    assert "/nowhere.jsonl" in cluster.apriel("logs", "wrong").stdout
    assert not run_dir_of(cluster, "wrong").root.exists()


def set_limit(cluster: Cluster, run: Launched, *, minutes_from_now: int) -> None:
    """SLURM's limits are whole minutes from the start; it signals `batch.save_before_s` before, or now."""
    elapsed = cluster.slurm("squeue", "--noheader", f"--jobs={run.job}", "--format=%M").strip().split(":")
    minutes = int(elapsed[-2]) + 60 * (int(elapsed[-3]) if len(elapsed) > 2 else 0)
    cluster.slurm("scontrol", "update", f"jobid={run.job}", f"timelimit={minutes + minutes_from_now}")
