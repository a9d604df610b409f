"""`apriel status`, `logs` and `stop` of a launch, with stand-ins for SLURM's commands."""

import os
import subprocess
from pathlib import Path

import msgspec
import pytest

from apriel_mcore.cluster import watch
from apriel_mcore.cluster.folders import Launch, put
from apriel_mcore.cluster.record import Record
from apriel_mcore.cluster.transport import LoginNode
from apriel_mcore.errors import InputError
from apriel_mcore.rundir import RunDir
from tests.cluster.sites import mini_site

JOB = "71"
SQUEUE = '#!/bin/bash\ncat "$STANDS/queue"\n'
SCANCEL = '#!/bin/bash\necho "$*" >> "$STANDS/cancelled"\n'


class Said(msgspec.Struct):
    stdout: str
    stderr: str
    exited: int


class Here:
    """A tunnel to this machine."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment

    def run(self, command: str, hide: bool = True, warn: bool = True) -> Said:
        done = subprocess.run(
            ["bash", "-c", command], env=self._environment, capture_output=True, text=True, check=False
        )
        return Said(done.stdout, done.stderr, done.returncode)


class World:
    """One launch, and the queue it is in."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.stands = folder / "stands"
        self.stands.mkdir()
        for name, text in (("squeue", SQUEUE), ("scancel", SCANCEL)):
            (self.stands / name).write_text(text)
            (self.stands / name).chmod(0o755)
        path = f"{self.stands}:{os.environ['PATH']}"
        here = Here({"PATH": path, "STANDS": str(self.stands)})
        monkeypatch.setattr("apriel_mcore.cluster.transport._tunnel", lambda _: here)
        self.site = mini_site(f"root={folder}")
        self.login = LoginNode(self.site)
        self.queue("RUNNING")

    def queue(self, *states: str) -> None:
        """One job, or the tasks of an array."""
        names = [f"{JOB}_{task}" for task in range(len(states))] if len(states) > 1 else [JOB]
        rows = [f"{JOB} {name} {state}\n" for name, state in zip(names, states, strict=False)]
        (self.stands / "queue").write_text("".join(rows))

    def launched(self, *seeds: int) -> Record:
        folder = self.folder / "launches" / "one"
        folder.mkdir(parents=True)
        put(
            folder / "launch.json",
            msgspec.json.encode(Launch(name="x", seeds=[*seeds], continues_changed=False)),
        )
        return Record(name="x", job=JOB, folder=str(folder), num_tasks=max(1, len(seeds)), site=self.site)

    def run_dir(self, record: Record, task: int = 0) -> RunDir:
        launch = record.launch_folder.read_launch()
        run_dir = record.launch_folder.run_dir(launch, task)
        run_dir.logs.mkdir(parents=True)
        return run_dir

    def node_log(self, record: Record, count: int, text: str, task: int = 0) -> None:
        attempt = record.launch_folder.attempts / f"{task}.{count}"
        attempt.mkdir(parents=True, exist_ok=True)
        (attempt / "node-0.log").write_text(text)

    def cancelled(self) -> list[str]:
        path = self.stands / "cancelled"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def said(world: World, record: Record, process: str, *, follow: bool = False) -> str:
    return "\n".join(watch.logs(record, world.login, process=process, follow=follow))


def test_a_stop_asks_what_runs_and_cancels_what_waits(world: World) -> None:
    record = world.launched(3, 4)
    world.queue("RUNNING", "PENDING")
    answer = watch.stop(record, world.login, now=False)
    assert world.cancelled() == ["--batch --signal=USR1 71_0", "71_1"]
    assert [record.launch_folder.held_back(task).exists() for task in (0, 1)] == [True, True]
    assert "come back" not in answer


@pytest.mark.parametrize(("now", "words"), [(False, "--batch --signal=USR1 71"), (True, "71")])
def test_a_stop_that_cannot_be_written_down_still_stops(world: World, now: bool, words: str) -> None:
    record = msgspec.structs.replace(world.launched(), folder=str(world.folder / "gone"))
    answer = watch.stop(record, world.login, now=now)
    assert world.cancelled() == [words]
    assert "may come back" in answer and "scancel 71" in answer and "No such file" in answer


def test_a_line_that_is_being_written_is_no_step_yet(world: World) -> None:
    record = world.launched()
    run_dir = world.run_dir(record)
    step = '{"event": "step", "step": 3, "reward_mean": 0.5}\n'
    run_dir.events.write_text(step + step.replace("3", "4")[:30])
    lines = list(watch.status(record, world.login))
    assert lines[1] == "task 0  RUNNING  never ran  step 3, reward 0.500"


def test_a_log_that_is_not_there_yet_is_refused_with_the_names_there_are(world: World) -> None:
    record = world.launched()
    world.queue("PENDING")
    for process in ("job", "node-0", "trainer-rank0"):
        with pytest.raises(InputError, match=f"no log of '{process}'; ask for job, node-K"):
            said(world, record, process)


def test_a_task_has_its_own_logs_and_no_other_exists(world: World) -> None:
    record = world.launched(7, 8)
    for task in (0, 1):
        world.node_log(record, 0, f"node of {task}", task=task)
        (record.launch_folder.path / f"job-71_{task}.log").write_text(f"job of {task}")
        world.run_dir(record, task).log("trainer-rank0", 1).write_text(f"trainer of {task}")
    for name in ("node-0", "job", "trainer"):
        assert f"{name.split('-')[0]} of 0" in said(world, record, name)
        assert f"{name.split('-')[0]} of 1" in said(world, record, f"1/{name}")
    for wrong in ("5/trainer", "-1/trainer", "x/node-0"):
        with pytest.raises(InputError, match=r"no task .*; x has 0, 1"):
            said(world, record, wrong)


def test_a_run_without_seeds_has_no_tasks(world: World) -> None:
    with pytest.raises(InputError, match=r"1/node-0: x was launched without --seeds"):
        said(world, world.launched(), "1/node-0")


@pytest.mark.parametrize("process", ["node-0", "trainer"])
def test_a_followed_log_goes_on_with_the_next_attempt(
    world: World, monkeypatch: pytest.MonkeyPatch, process: str
) -> None:
    """The job is requeued while somebody looks; other processes of the new attempt write later."""
    record = world.launched()
    logs = world.run_dir(record)
    monkeypatch.setattr(watch, "_FOLLOW_S", 0.0)

    def attempt(number: int, text: str) -> None:
        world.node_log(record, number - 1, text)
        logs.log("trainer-rank0", number).write_text(text)

    attempt(1, "first\n")
    text = watch.logs(record, world.login, process=process, follow=True)
    assert [next(text).endswith("1.log" if process == "trainer" else "0.0/node-0.log"), next(text)] == [
        True,
        "first",
    ]
    attempt(1, "first\nlast word\n")
    attempt(2, "second\n")
    logs.log("trainer-rank1", 2).write_text("another\n")
    assert next(text) == "last word"
    assert next(text).endswith("2.log" if process == "trainer" else "0.1/node-0.log")
    assert next(text) == "second"
    world.queue()
    assert list(text) == []
