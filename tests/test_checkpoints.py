"""Saves in the background, pruned only once whole; a resumed loop trains the batches that were recorded."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from apriel_mcore import checkpoint_folder, loop
from apriel_mcore.checkpoints import Checkpoints, best_steps, newest_healthy
from apriel_mcore.config.schema import Checkpoint
from apriel_mcore.evaluate import NoEvaluator
from apriel_mcore.fakes import FakeLearner
from apriel_mcore.obs.steplog import SilentStepLog
from apriel_mcore.obs.timeline import Timeline
from apriel_mcore.rollout.event_loop import EventLoopThread
from apriel_mcore.rollout.shared_feed import FirstRankFeed
from apriel_mcore.types import Batch, StepStats
from tests.rollout.test_feed import Harness, recipe


class SlowSaver:
    """Completes a save only at the second look, or when it is waited for."""

    def __init__(self, root: Path, told: list[str]) -> None:
        self.root = root
        self.told = told
        self.pending: dict[int, dict[str, Any]] = {}
        self.looks = 0

    def begin(self, step: int, loop_state: dict[str, Any]) -> None:
        assert not self.pending
        self.pending = {step: json.loads(json.dumps(loop_state))}
        self.looks = 0
        self.told.append(f"begin {step}")

    def advance(self, *, wait: bool) -> bool:
        self.looks += 1
        if not self.pending or (not wait and self.looks < 2):
            return False
        ((step, state),) = self.pending.items()
        folder = checkpoint_folder.folder_of(self.root, step)
        partial = checkpoint_folder.partial_of(folder)
        partial.mkdir(parents=True)
        (partial / checkpoint_folder.STATE_FILE).write_text(json.dumps(state))
        checkpoint_folder.seal(partial, folder, {})
        self.pending = {}
        self.told.append(f"sealed {step}")
        return True


class Snapshot:
    def snapshot(self) -> dict[str, Any]:
        return {}


class OneRank:
    """checkpoints.RankFiles of a process that is alone."""

    world = 0
    is_first = True

    def broadcast(self, payload: bytes) -> bytes:
        return payload

    def gather(self, payload: bytes) -> list[bytes]:
        return [payload]

    def barrier(self) -> None:
        """Nobody to wait for."""


def policy(root: Path, told: list[str], *, num_steps: int) -> Checkpoints:
    return Checkpoints(
        Checkpoint(every=2),
        num_steps=num_steps,
        last_saved=0,
        feed=Snapshot(),
        saver=SlowSaver(root, told),
        prune=lambda: told.append("prune"),
    )


def test_steps_go_on_while_bytes_are_written_and_the_last_one_waits(tmp_path: Path) -> None:
    told: list[str] = []
    checkpoints = policy(tmp_path, told, num_steps=7)
    for step in range(1, 8):
        told.append(f"step {step}")
        checkpoints.save_if_due(step)
    assert told == [
        "step 1",
        *("step 2", "begin 2", "step 3", "step 4", "sealed 2", "prune", "begin 4", "step 5"),
        *("step 6", "sealed 4", "prune", "begin 6", "step 7", "sealed 6", "prune", "begin 7"),
        *("sealed 7", "prune"),
    ]


def test_a_stop_completes_the_save_that_is_under_way_and_saves_no_step_twice(tmp_path: Path) -> None:
    told: list[str] = []
    checkpoints = policy(tmp_path, told, num_steps=9)
    checkpoints.save_if_due(2)
    checkpoints.save(2)
    checkpoints.save(2)
    assert told == ["begin 2", "sealed 2", "prune"]
    checkpoints.save(3)
    assert told[3:] == ["begin 3", "sealed 3", "prune"]


def test_the_best_are_those_saved_and_evaluated(tmp_path: Path) -> None:
    saver = SlowSaver(tmp_path, [])
    for step in (2, 4, 6):
        saver.begin(step, {})
        saver.advance(wait=True)
    accuracy = {n: {"math": a} for n, a in {0: 0.9, 2: 0.5, 3: 0.8, 4: 0.5, 6: 0.4}.items()}
    assert best_steps(accuracy, tmp_path, 1) == {4}
    assert best_steps(accuracy, tmp_path, 2) == {2, 4}
    assert best_steps(accuracy, tmp_path, 0) == set()
    accuracy[2] = accuracy[6] = {"math": 0.3, "code": 0.1}
    assert best_steps(accuracy, tmp_path, 3) == {2, 6}, "the mean of step 4 is of other problems"


class FragileLearner(FakeLearner):
    """Fails instead of taking step `fails_at`."""

    def __init__(self, step: int, fails_at: int) -> None:
        super().__init__(step)
        self.fails_at = fails_at

    def train_step(self, batch: Batch) -> StepStats:
        if self.step + 1 == self.fails_at:
            raise InterruptedError
        return super().train_step(batch)


class Publishing:
    """Puts versions on the fake pool."""

    def __init__(self, harness: Harness) -> None:
        self._harness = harness

    def publish(self, version: int) -> float:
        self._harness.pool._version = version
        return 0.0


def run(harness: Harness, learner: FakeLearner, root: Path) -> None:
    config = harness.config
    loop.run(
        config,
        learner=learner,
        publisher=Publishing(harness),
        feed=FirstRankFeed(harness.feed, config.stages(), OneRank(), lambda: None),
        evaluator=NoEvaluator(),
        log=SilentStepLog(Timeline(root, rank=1, attempt=1)),
        checkpoints=Checkpoints(
            config.checkpoint,
            num_steps=config.train.num_steps,
            last_saved=learner.step,
            feed=harness.feed,
            saver=SlowSaver(root, []),
            prune=lambda: checkpoint_folder.prune(root, keep=config.checkpoint.keep, best=()),
        ),
    )


@pytest.fixture
def thread() -> Iterator[EventLoopThread]:
    thread = EventLoopThread()
    yield thread
    thread.close()


@pytest.mark.parametrize(("damaged", "resumed_at"), [((), 6), ((6,), 4)])
def test_a_resumed_loop_trains_the_same_batches(
    tmp_path: Path, thread: EventLoopThread, damaged: tuple[int, ...], resumed_at: int
) -> None:
    root = tmp_path / "checkpoints"
    config = recipe("train.num_steps=10", "checkpoint.every=2")
    harness = Harness(config, tmp_path / "rollouts", thread)
    first = FragileLearner(0, fails_at=9)
    with pytest.raises(InterruptedError):
        run(harness, first, root)  # step 8's save was begun and never completed

    for step in damaged:
        (checkpoint_folder.folder_of(root, step) / checkpoint_folder.STATE_FILE).write_text("{}")
    told: list[str] = []
    folder = newest_healthy(root, OneRank(), told.append)
    assert folder is not None and checkpoint_folder.step_of(folder) == resumed_at
    assert len(told) == len(damaged) and all("damaged (state.json: 2 bytes" in line for line in told)

    state = json.loads((folder / checkpoint_folder.STATE_FILE).read_text())
    harness.snapshots[resumed_at] = json.dumps(state["feed"])
    harness.crash_and_restore(resumed_at)
    second = FragileLearner(resumed_at, fails_at=0)
    run(harness, second, root)
    harness.feed.stop()
    assert second.trained[: 8 - resumed_at] == first.trained[resumed_at:]
    assert len(second.trained) == 10 - resumed_at
    assert [checkpoint_folder.step_of(one) for one in checkpoint_folder.complete(root)] == [8, 10]
    assert not list(root.glob("*.damaged")), "room is given back once a newer one is whole"
