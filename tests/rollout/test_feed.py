"""The feed under delays, losses and crashes: quotas met, lag bounded, nothing generated twice."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from apriel_mcore.config.load import load
from apriel_mcore.config.schema import RunConfig
from apriel_mcore.data.controllers import controller_of
from apriel_mcore.data.sampler import DomainScheduler
from apriel_mcore.errors import InputError, PoolError
from apriel_mcore.fakes import FakeJudge, FakePool
from apriel_mcore.rollout.ask import Asker
from apriel_mcore.rollout.event_loop import EventLoopThread
from apriel_mcore.rollout.feed import RolloutFeed, StopRequested, WeightsWanted
from apriel_mcore.rollout.journal import Journal
from apriel_mcore.rollout.reference import NoScorer
from apriel_mcore.types import Message, Problem

QUICKSTART = Path(__file__).parents[2] / "recipes" / "quickstart.toml"
SOLVE_RATES = {"math": 0.3, "code": 0.5, "logic": 0.5, "instruction": 0.8, "calls": 0.15}


def recipe(*overrides: str) -> RunConfig:
    return load(QUICKSTART, ["rollout.group_size=4", "train.groups_per_step=20", *overrides])


def problems_of(config: RunConfig) -> dict[str, Problem]:
    return {
        f"{domain}-{i}": Problem(
            id=f"{domain}-{i}",
            domain=domain,
            source="test",
            messages=(Message(role="user", content="?"),),
            verifier="math",
            reference={},
            split_key=str(i),
            prompt_T=(1, 2, 3),
        )
        for domain in config.domains
        for i in range(40)
    }


class Harness:
    """A feed on fakes that can be thrown away and built again from its files."""

    def __init__(self, config: RunConfig, folder: Path, loop: EventLoopThread) -> None:
        self.config = config
        self.folder = folder
        self.loop = loop
        self.stop = False
        self.weights_wanted = False
        self.snapshots: dict[int, str] = {}
        self.pool = FakePool(mean_delay_s=0.001)
        self.judge = FakeJudge(SOLVE_RATES)
        self.feed = self.build()

    def build(self) -> RolloutFeed:
        config = self.config
        problems = problems_of(config)
        scheduler = DomainScheduler(
            config.ratios,
            {d: [p.id for p in problems.values() if p.domain == d] for d in config.domains},
            groups_per_step=config.train.groups_per_step,
            group_size=config.rollout.group_size,
            settings=config.sampler,
            max_lag=config.rollout.max_lag,
            max_group_age=config.rollout.oldest_group,
            seed=config.seed,
        )
        return RolloutFeed(
            config,
            scheduler=scheduler,
            controller=controller_of(config),
            problems=problems,
            asker=Asker(self.pool, self.judge, NoScorer()),
            journal=Journal(self.folder, tell=lambda message: None),
            loop=self.loop.loop,
            stop_requested=lambda: self.stop,
            weights_wanted=lambda: self.weights_wanted,
            alarm=lambda message: None,
        )

    def step(self, version: int) -> list[tuple[int, str]]:
        """Take a batch, 'train' it, publish it."""
        groups = self.feed.take().groups
        self.pool._version = version + 1
        self.feed.settle(version + 1)
        return [(group.id, group.problem.domain) for group in groups]

    def checkpoint(self, step: int) -> None:
        self.snapshots[step] = json.dumps(self.feed.snapshot())

    def crash_and_restore(self, step: int) -> None:
        """Lose the process; continue from the checkpoint of `step` and the journal."""
        self.feed.stop()
        self.pool = FakePool(seed=1, mean_delay_s=0.001)
        self.pool._version = step
        self.feed = self.build()
        self.feed.restore(json.loads(self.snapshots[step]))
        self.feed.settle(step)


@pytest.fixture
def loop() -> Iterator[EventLoopThread]:
    thread = EventLoopThread()
    yield thread
    thread.close()


def test_batches_meet_their_quotas_and_lag_stays_bounded(tmp_path: Path, loop: EventLoopThread) -> None:
    harness = Harness(recipe("rollout.max_lag=1.0"), tmp_path, loop)
    harness.feed.settle(0)
    trained: Counter[str] = Counter()
    for version in range(12):
        groups = harness.feed.take().groups
        assert all(version - group.version <= 2 for group in groups)
        trained.update(group.problem.domain for group in groups)
        harness.pool._version = version + 1
        harness.feed.settle(version + 1)
    metrics = harness.feed.metrics()
    harness.feed.stop()
    assert metrics["verify.queue"] == 0.0
    assert all(0.0 < metrics[f"keep_rate_task.{name}"] <= 1.0 for name in harness.config.ratios)
    assert all(
        metrics[f"keep_rate_shaped.{name}"] >= metrics[f"keep_rate_task.{name}"]
        for name in harness.config.ratios
    )
    total = sum(trained.values())
    assert total == 240
    assert {name: count / total for name, count in trained.items()} == harness.config.ratios


def test_max_lag_zero_is_strictly_on_policy(tmp_path: Path, loop: EventLoopThread) -> None:
    harness = Harness(recipe("rollout.max_lag=0"), tmp_path, loop)
    harness.feed.settle(0)
    for version in range(4):
        groups = harness.feed.take().groups
        assert {r.version_first for g in groups for r in g.rollouts_G} == {version}
        harness.pool._version = version + 1
        harness.feed.settle(version + 1)
    harness.feed.stop()


@pytest.mark.parametrize("crash_after", [2, 5])
def test_a_restored_feed_replays_batches_and_generates_no_finished_group_again(
    tmp_path: Path, loop: EventLoopThread, crash_after: int
) -> None:
    harness = Harness(recipe(), tmp_path, loop)
    harness.feed.settle(0)
    harness.step(0)
    harness.step(1)
    harness.checkpoint(2)
    lost = [harness.step(version) for version in range(2, 2 + crash_after)]
    harness.crash_and_restore(2)

    again = [harness.step(version) for version in range(2, 1 + crash_after)]
    assert harness.pool.served == 0, "a recorded batch needs no generation"
    again.append(harness.step(1 + crash_after))
    assert again == lost

    seen = {group_id for batch in again for group_id, _ in batch}
    counts: Counter[str] = Counter()
    for version in range(2 + crash_after, 8 + crash_after):
        batch = harness.step(version)
        assert not seen & {group_id for group_id, _ in batch}
        seen |= {group_id for group_id, _ in batch}
        counts.update(domain for _, domain in batch)
    assert {name: count / 120 for name, count in counts.items()} == harness.config.ratios
    harness.feed.stop()


@pytest.mark.parametrize("num_crashes", [2, 3])
def test_several_crashes_may_follow_one_checkpoint(
    tmp_path: Path, loop: EventLoopThread, num_crashes: int
) -> None:
    harness = Harness(recipe(), tmp_path, loop)
    harness.feed.settle(0)
    harness.step(0)
    harness.checkpoint(1)
    trained: dict[int, list[tuple[int, str]]] = {}
    for crash in range(num_crashes):
        for version in range(1, 3 + 2 * crash):
            batch = harness.step(version)
            assert trained.setdefault(version, batch) == batch
        harness.crash_and_restore(1)
    for version in range(1, 6 + 2 * num_crashes):
        batch = harness.step(version)
        assert trained.setdefault(version, batch) == batch
    ids = [group_id for batch in trained.values() for group_id, _ in batch]
    assert len(ids) == len(set(ids)), "no group is trained twice"
    harness.feed.stop()


@pytest.mark.parametrize("max_lag", ["0", "1.0"])
@pytest.mark.parametrize("stop_after", [0, 1, 2])
def test_a_checkpoint_while_batches_are_replayed_keeps_the_rest_of_them(
    tmp_path: Path, loop: EventLoopThread, max_lag: str, stop_after: int
) -> None:
    harness = Harness(recipe(f"rollout.max_lag={max_lag}"), tmp_path, loop)
    harness.snapshots[0] = json.dumps(harness.feed.fresh())
    harness.feed.settle(0)
    trained = [harness.step(version) for version in range(3)]
    harness.crash_and_restore(0)
    assert [harness.step(version) for version in range(stop_after)] == trained[:stop_after]
    harness.stop = True
    with pytest.raises(StopRequested):
        harness.feed.take()
    harness.checkpoint(stop_after)
    harness.stop = False
    harness.crash_and_restore(stop_after)
    assert [harness.step(version) for version in range(stop_after, 2)] == trained[stop_after:2]
    assert harness.pool.served == 0, "what is recorded needs no generation"
    assert harness.step(2) == trained[2]
    batches = [harness.step(version) for version in range(3, 6)]
    assert all(len(batch) == 20 for batch in batches)
    harness.feed.stop()


def test_a_crash_before_the_first_checkpoint_replays_from_the_start(
    tmp_path: Path, loop: EventLoopThread
) -> None:
    harness = Harness(recipe(), tmp_path, loop)
    fresh = json.dumps(harness.feed.fresh())
    harness.feed.settle(0)
    first = harness.step(0)
    harness.snapshots[0] = fresh
    harness.crash_and_restore(0)
    assert harness.step(0) == first
    harness.feed.stop()


def test_a_torn_journal_line_is_cut(tmp_path: Path, loop: EventLoopThread) -> None:
    harness = Harness(recipe(), tmp_path, loop)
    harness.snapshots[0] = json.dumps(harness.feed.fresh())
    harness.feed.settle(0)
    first = harness.step(0)
    harness.feed.stop()
    with (tmp_path / "journal_000000.jsonl").open("ab") as file:
        file.write(b'{"type":"resolve","group_id":12')
    harness.crash_and_restore(0)
    assert harness.step(0) == first
    harness.step(1)
    harness.feed.stop()


def test_a_crash_during_a_checkpoint_falls_back_to_the_one_before(
    tmp_path: Path, loop: EventLoopThread
) -> None:
    harness = Harness(recipe(), tmp_path, loop)
    harness.snapshots[0] = json.dumps(harness.feed.fresh())
    harness.feed.settle(0)
    first = harness.step(0)
    harness.feed.snapshot()  # never made it into a checkpoint
    second = harness.step(1)
    harness.crash_and_restore(0)
    assert [harness.step(0), harness.step(1)] == [first, second]
    harness.checkpoint(2)
    third = harness.step(2)
    harness.crash_and_restore(2)
    assert harness.step(2) == third
    harness.feed.stop()


def test_judges_that_crash_lose_rollouts_and_never_score_them(tmp_path: Path, loop: EventLoopThread) -> None:
    harness = Harness(recipe(), tmp_path, loop)
    harness.judge.crash_rate = 0.2
    harness.feed.settle(0)
    groups = harness.feed.take().groups
    lost = harness.feed.metrics()["lost.judge"]
    harness.feed.stop()
    assert lost > 0
    assert all(2 <= len(group.rollouts_G) <= 4 for group in groups)


def test_a_dead_pool_ends_take_with_its_error(tmp_path: Path, loop: EventLoopThread) -> None:
    harness = Harness(recipe(), tmp_path, loop)
    harness.pool.alive = False
    harness.feed.settle(0)
    with pytest.raises(PoolError):
        harness.feed.take()
    harness.feed.stop()


def test_a_stop_request_is_seen_while_waiting(tmp_path: Path, loop: EventLoopThread) -> None:
    harness = Harness(recipe(), tmp_path, loop)
    harness.stop = True
    harness.feed.settle(0)
    with pytest.raises(StopRequested):
        harness.feed.take()
    harness.feed.stop()


def test_wanted_weights_interrupt_the_wait_and_nothing_else(tmp_path: Path, loop: EventLoopThread) -> None:
    harness = Harness(recipe(), tmp_path, loop)
    harness.weights_wanted = True
    harness.feed.settle(0)
    with pytest.raises(WeightsWanted):
        harness.feed.take()
    harness.weights_wanted = False
    assert len(harness.feed.take().groups) == 20
    harness.feed.stop()


def test_a_moving_mixture_is_followed_and_replayed(tmp_path: Path, loop: EventLoopThread) -> None:
    moving = recipe("mixture.kind=reward_gap", "mixture.every=2")
    harness = Harness(moving, tmp_path, loop)
    harness.feed.settle(0)
    aims, shares = [], []
    for version in range(6):
        batch = harness.step(version)
        aims.append(dict(harness.feed.targets))
        shares.append(Counter(domain for _, domain in batch)["calls"] / len(batch))
        if version == 1:
            harness.checkpoint(2)
    assert aims[0] == aims[1] == moving.ratios
    assert aims[2] == aims[3] != aims[1]
    assert aims[2]["calls"] > 0.15, "the domain that is solved least is owed more"
    assert shares[2] == pytest.approx(aims[2]["calls"], abs=0.05)
    harness.crash_and_restore(2)
    again = [(harness.step(version), dict(harness.feed.targets)) for version in range(2, 6)]
    assert [aim for _, aim in again] == aims[2:]
    assert [Counter(domain for _, domain in batch)["calls"] / len(batch) for batch, _ in again] == shares[2:]
    harness.feed.stop()


def test_a_journal_that_no_longer_reaches_back_is_refused(tmp_path: Path, loop: EventLoopThread) -> None:
    harness = Harness(recipe(), tmp_path, loop)
    harness.feed.settle(0)
    for version in range(4):
        harness.step(version)
        harness.checkpoint(version + 1)
    with pytest.raises(InputError, match="segment 1 on, the oldest is 2"):
        harness.crash_and_restore(1)
    harness.feed.stop()


def test_the_next_stage_has_its_own_mixture_and_budget(tmp_path: Path, loop: EventLoopThread) -> None:
    ratios = {"math": 0.0, "code": 0.5, "logic": 0.5, "instruction": 0.0, "calls": 0.0}
    staged = recipe(
        "mixture.kind=stages",
        "mixture.stages.all.steps=2",
        "mixture.stages.two.steps=9",
        "mixture.stages.two.settings.domains.code.max_output_tokens=40",
        "mixture.stages.two.settings.domains.logic.max_output_tokens=40",
        *(f"mixture.stages.two.settings.domains.{name}.ratio={ratio}" for name, ratio in ratios.items()),
    )
    harness = Harness(staged, tmp_path, loop)
    harness.feed.settle(0)
    stages, domains = [], []
    for version in range(4):
        batch = harness.feed.take()
        stages.append(batch.aim.stage)
        domains.append(Counter(group.problem.domain for group in batch.groups))
        harness.pool._version = version + 1
        harness.feed.settle(version + 1)
    harness.feed.stop()
    assert stages == [0, 0, 1, 1]
    assert domains[1]["math"] == 8
    assert domains[2] == domains[3] == {"code": 10, "logic": 10}
    assert harness.pool.asked[-1].max_tokens == 40


def test_a_stage_has_its_own_temperature_and_lag_also_after_a_crash(
    tmp_path: Path, loop: EventLoopThread
) -> None:
    staged = recipe(
        "rollout.temperature=0.8",
        "rollout.max_lag=2.0",
        "mixture.kind=stages",
        "mixture.stages.hot.steps=2",
        "mixture.stages.hot.settings.rollout.temperature=1.2",
        "mixture.stages.strict.steps=9",
        "mixture.stages.strict.settings.rollout.max_lag=0",
    )
    harness = Harness(staged, tmp_path, loop)
    harness.feed.settle(0)
    temperatures, lags = [], []
    for version in range(5):
        if version == 3:
            harness.checkpoint(version)
            harness.crash_and_restore(version)
        batch = harness.feed.take()
        temperatures.append({group.temperature for group in batch.groups})
        lags.append(max(version - group.version for group in batch.groups))
        harness.pool._version = version + 1
        harness.feed.settle(version + 1)
    harness.feed.stop()
    assert temperatures[:2] == [{1.2}, {1.2}]
    assert temperatures[2:] == [{0.8}] * 3  # what was ready at 1.2 was older than the strict stage allows
    assert lags[2:] == [0, 0, 0]
    assert max(lags) <= 2
