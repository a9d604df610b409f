"""The scheduler in random worlds: ratios are met, nothing stops, nothing is too old, nothing is forgotten."""

import json
import random
from collections import Counter
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apriel_mcore.config.schema import Sampler
from apriel_mcore.data.sampler import Composition, DomainScheduler, Ticket
from apriel_mcore.errors import InputError

RATIOS = {"math": 0.40, "code": 0.25, "logic": 0.15, "instruction": 0.10, "calls": 0.10}
NAMES = tuple(RATIOS)
Lag = float | Literal["unbounded"]
Age = float | Literal["off"]
LAGS = st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 3.5, "unbounded"])
KEEPS = st.lists(st.floats(0.05, 1.0), min_size=5, max_size=5)
SPEEDS = st.lists(st.integers(1, 30), min_size=5, max_size=5)
KINDS = st.sampled_from(["deficit", "paper", "static"])
COMPOSITIONS = st.sampled_from(["quota", "fifo"])


def scheduler_of(
    *,
    ratios: dict[str, float] = RATIOS,
    groups_per_step: int = 16,
    max_lag: Lag = 2.0,
    max_group_age: Age = "off",
    num_problems: int = 40,
    **options: Any,
) -> DomainScheduler:
    return DomainScheduler(
        ratios,
        {name: [f"{name}{number}" for number in range(num_problems)] for name in ratios},
        groups_per_step=groups_per_step,
        group_size=8,
        settings=Sampler(**options),
        max_lag=max_lag,
        max_group_age=max_group_age,
        seed=1,
    )


class World:
    """A pool and a trainer driven by a seeded random stream; it fails the test if everybody waits."""

    def __init__(
        self,
        scheduler: DomainScheduler,
        *,
        keep: list[float],
        speed: list[int],
        seed: int = 0,
        slots: int = 24,
        failures: float = 0.0,
        tokens: list[int] | None = None,
    ) -> None:
        self.scheduler = scheduler
        self.random = random.Random(seed)
        self.keep = dict(zip(NAMES, keep, strict=True))
        self.speed = dict(zip(NAMES, speed, strict=True))
        self.tokens = dict(zip(NAMES, tokens or [1] * 5, strict=True))
        self.slots = slots
        self.failures = failures
        self.version = 0
        self.in_flight: dict[int, Ticket] = {}
        self.tickets: dict[int, Ticket] = {}
        self.batches: list[Composition] = []
        self.lags: list[int] = []
        self.busy_for = 0

    def run(self, num_steps: int) -> None:
        idle_rounds = 0
        while self.version < num_steps:
            self.dispatch()
            self.train()
            idle_rounds = 0 if self.in_flight or self.busy_for else idle_rounds + 1
            assert idle_rounds < 3, "everybody waits for everybody"
            if self.in_flight:
                self.resolve()

    def dispatch(self) -> None:
        while len(self.in_flight) < self.slots:
            ticket = self.scheduler.dispatch(self.version)
            if ticket is None:
                return
            self.in_flight[ticket.group_id] = self.tickets[ticket.group_id] = ticket

    def train(self) -> None:
        """The trainer is busy while some groups resolve, then publishes."""
        if self.busy_for > 0:
            self.busy_for -= 1
            if self.busy_for == 0 or not self.in_flight:
                self.busy_for = 0
                self.version += 1
                self.scheduler.settle()
            return
        batch = self.scheduler.compose(self.version)
        if batch is not None:
            self.batches.append(batch)
            self.lags += [self.version - self.tickets[group_id].version for group_id in batch.group_ids]
            self.busy_for = self.random.randrange(1, 12)

    def resolve(self) -> None:
        """A group ends; those of fast domains sooner."""
        candidates = self.random.choices(list(self.in_flight), k=2)
        group_id = min(candidates, key=lambda group_id: self.speed[self.in_flight[group_id].domain])
        ticket = self.in_flight.pop(group_id)
        kept = self.random.random() < self.keep[ticket.domain]
        outcome = "kept" if kept else "filtered"
        if self.random.random() < self.failures:
            outcome = "failed"
        length = self.random.randrange(1, 2 * self.tokens[ticket.domain] + 1)
        self.scheduler.resolve(group_id, outcome, loss_tokens=length)

    def domains(self, batch: Composition) -> Counter[str]:
        return Counter(self.tickets[group_id].domain for group_id in batch.group_ids)


# --- the mixture -----------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(keep=KEEPS, speed=SPEEDS, max_lag=LAGS, seed=st.integers(0, 99))
def test_trained_groups_never_stray_a_whole_group_from_their_target(keep, speed, max_lag, seed):
    scheduler = scheduler_of(max_lag=max_lag)
    world = World(scheduler, keep=keep, speed=speed, seed=seed)
    world.run(12)
    trained: Counter[str] = Counter()
    for number, batch in enumerate(world.batches, start=1):
        trained += world.domains(batch)
        assert len(batch.group_ids) == 16 and not batch.short
        for name, ratio in RATIOS.items():
            assert abs(trained[name] - ratio * 16 * number) < 1 + 1e-6
    shares = [scheduler.metrics()[f"delivered_share.{name}"] for name in NAMES]
    assert shares == pytest.approx([trained[name] / trained.total() for name in NAMES])


@settings(max_examples=8, deadline=None)
@given(keep=KEEPS, speed=SPEEDS, seed=st.integers(0, 99))
def test_first_come_batches_of_the_deficit_rule_deliver_the_mixture_in_the_long_run(keep, speed, seed):
    world = World(scheduler_of(compose="fifo"), keep=keep, speed=speed, seed=seed)
    world.run(60)
    trained = sum((world.domains(batch) for batch in world.batches), Counter[str]())
    assert sum(abs(trained[name] / trained.total() - ratio) for name, ratio in RATIOS.items()) < 0.12


def test_completed_groups_are_the_unit_if_asked_for():
    scheduler = scheduler_of(unit="groups", compose="fifo")
    world = World(scheduler, keep=[0.9, 0.5, 0.2, 0.9, 0.1], speed=[9, 5, 3, 1, 1])
    world.run(60)
    completed = Counter(
        ticket.domain for group_id, ticket in world.tickets.items() if group_id not in world.in_flight
    )
    for name, ratio in RATIOS.items():
        assert completed[name] / completed.total() == pytest.approx(ratio, abs=0.01)


@pytest.mark.parametrize("compose", ["quota", "fifo"])
def test_kept_tokens_as_the_unit(compose):
    scheduler = scheduler_of(unit="kept_tokens", compose=compose, groups_per_step=64)
    tokens = [600, 450, 200, 100, 50]
    world = World(scheduler, keep=[0.6] * 5, speed=[5, 4, 3, 2, 1], slots=96, tokens=tokens)
    world.run(60)
    for name, ratio in RATIOS.items():
        assert scheduler.metrics()[f"delivered_token_share.{name}"] == pytest.approx(ratio, abs=0.01)


def test_completed_tokens_as_the_unit():
    scheduler = scheduler_of(unit="tokens", compose="fifo", groups_per_step=64)
    world = World(scheduler, keep=[1.0] * 5, speed=[5, 4, 3, 2, 1], slots=96, tokens=[600, 450, 200, 100, 50])
    world.run(60)
    for name, ratio in RATIOS.items():
        assert scheduler.metrics()[f"delivered_token_share.{name}"] == pytest.approx(ratio, abs=0.03)


# --- no deadlock, bounded age, bounded work ----------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    kind=KINDS,
    compose=COMPOSITIONS,
    unit=st.sampled_from(["kept_groups", "kept_tokens"]),
    max_lag=LAGS,
    age=st.sampled_from([0.0, 0.5, 1.0, 3.0, "off"]),
    keep=KEEPS,
    speed=SPEEDS,
    failures=st.sampled_from([0.0, 0.3, 0.8]),
    slots=st.integers(1, 40),
    seed=st.integers(0, 99),
)
def test_nothing_stops_and_nothing_trained_is_too_old(
    kind, compose, unit, max_lag, age, keep, speed, failures, slots, seed
):
    scheduler = scheduler_of(
        kind=kind,
        compose=compose,
        unit=unit,
        max_lag=max_lag,
        max_group_age=age,
        groups_per_step=6,
        num_problems=5,
    )
    world = World(scheduler, keep=keep, speed=speed, failures=failures, slots=slots, seed=seed)
    world.run(6)
    assert len(world.batches) >= 6
    if age != "off":
        assert max(world.lags) <= age
    if max_lag == 0:
        assert set(world.lags) == {0}


@given(max_lag=st.sampled_from([0.25, 1.0, 3.0]), kind=KINDS)
@settings(deadline=None)
def test_outstanding_work_is_bounded_in_expected_groups(max_lag, kind):
    scheduler = scheduler_of(kind=kind, max_lag=max_lag, compose="fifo")
    dispatched = 0
    while scheduler.dispatch(0) is not None:
        dispatched += 1
    assert dispatched == max(16, int(16 * (1 + max_lag)))


def test_a_low_keep_rate_widens_the_bound_up_to_four_times():
    scheduler = scheduler_of(max_lag=1.0, compose="fifo")
    for _ in range(200):
        ticket = scheduler.dispatch(0)
        assert ticket is not None
        scheduler.resolve(ticket.group_id, "filtered")
    dispatched = 0
    while scheduler.dispatch(0) is not None:
        dispatched += 1
    assert dispatched == 4 * 32


def test_on_policy_dispatches_nothing_between_compose_and_settle():
    scheduler = scheduler_of(max_lag=0.0)
    while ticket := scheduler.dispatch(7):
        scheduler.resolve(ticket.group_id, "kept")
    assert scheduler.compose(7) is not None
    assert scheduler.dispatch(7) is None
    scheduler.settle()
    assert scheduler.dispatch(8) is not None


def test_stale_groups_are_reported_once_and_asked_again():
    scheduler = scheduler_of(ratios={"math": 1.0}, groups_per_step=1, max_lag=3.0, max_group_age=1.0)
    tickets = [scheduler.dispatch(0) for _ in range(3)]
    for ticket in tickets:
        assert ticket is not None
        scheduler.resolve(ticket.group_id, "kept")
    first = scheduler.compose(0)
    assert first is not None and (first.group_ids, first.stale) == ((0,), ())
    scheduler.settle()
    assert scheduler.compose(2) is None
    asked = [scheduler.dispatch(2) for _ in range(2)]
    assert [a.problem_id for a in asked if a] == [t.problem_id for t in tickets[1:] if t]
    scheduler.resolve(3, "kept")
    second = scheduler.compose(2)
    assert second is not None and (second.group_ids, second.stale) == ((3,), (1, 2))
    assert scheduler.metrics()["stale.math"] == 2


def test_a_group_that_arrives_too_old_is_not_trained():
    scheduler = scheduler_of(ratios={"math": 1.0}, groups_per_step=1, max_lag=3.0, max_group_age=1.0)
    scheduler.dispatch(0)
    scheduler.dispatch(2)
    scheduler.resolve(0, "kept")
    assert scheduler.compose(2) is None
    scheduler.resolve(1, "kept")
    batch = scheduler.compose(2)
    assert batch is not None and (batch.group_ids, batch.stale) == ((1,), (0,))


def test_start_moves_the_age_of_a_group_that_waited_in_a_queue():
    scheduler = scheduler_of(ratios={"math": 1.0}, groups_per_step=1, max_lag=3.0, max_group_age=1.0)
    scheduler.dispatch(0)
    scheduler.start(0, 2)
    scheduler.resolve(0, "kept")
    batch = scheduler.compose(3)
    assert batch is not None and batch.group_ids == (0,)


# --- short batches, failures, stages, alarms ---------------------------------------------------------


def test_force_fills_a_batch_from_the_others_and_pays_back_one_batch_at_most():
    scheduler = scheduler_of(ratios={"math": 0.5, "code": 0.5}, groups_per_step=4, max_lag=8.0)
    assert scheduler.compose(0, force=True) is None
    for _ in range(20):
        ticket = scheduler.dispatch(0)
        if ticket and ticket.domain == "math":
            scheduler.resolve(ticket.group_id, "kept")
    assert scheduler.compose(0) is None
    for version in range(2):
        batch = scheduler.compose(version, force=True)
        assert batch is not None and batch.short and len(batch.group_ids) == 4
        scheduler.settle()
    assert scheduler.metrics()["short_batches"] == 2
    assert scheduler.state()["mixture"]["carry"] == [-2.0, 2.0]
    assert scheduler.state()["mixture"]["quotas"] == [0, 4]


def test_force_takes_a_part_of_a_batch():
    scheduler = scheduler_of(groups_per_step=4, compose="fifo")
    ticket = scheduler.dispatch(0)
    assert ticket is not None
    scheduler.resolve(ticket.group_id, "kept")
    batch = scheduler.compose(0, force=True)
    assert batch is not None and batch.short and batch.group_ids == (0,)


def test_failed_groups_are_asked_again_and_then_quarantined():
    scheduler = scheduler_of(ratios={"math": 1.0}, num_problems=2)
    attempts: list[tuple[str, int]] = []
    for _ in range(3):
        ticket = scheduler.dispatch(0)
        assert ticket is not None
        attempts.append((ticket.problem_id, ticket.attempt))
        scheduler.resolve(ticket.group_id, "failed")
    assert [attempt for _, attempt in attempts] == [0, 1, 2]
    assert len({problem for problem, _ in attempts}) == 1
    numbers = scheduler.metrics()
    assert (numbers["failed.math"], numbers["quarantined.math"]) == (3, 1)
    assert numbers["keep_rate.math"] == 1.0, "a failure says nothing about the filter"


def test_a_stage_change_drops_the_domain_that_leaves_and_does_not_pay_back_the_past():
    scheduler = scheduler_of(ratios={"math": 0.5, "code": 0.5}, groups_per_step=4, max_lag=4.0)
    tickets = [ticket for _ in range(12) if (ticket := scheduler.dispatch(0))]
    code = [ticket.group_id for ticket in tickets if ticket.domain == "code"]
    for ticket in tickets[:-2]:
        scheduler.resolve(ticket.group_id, "kept")
    scheduler.set_ratios({"math": 1.0, "code": 0.0})
    for ticket in tickets[-2:]:
        scheduler.resolve(ticket.group_id, "kept")
    batch = scheduler.compose(0)
    assert batch is not None and set(batch.stale) == set(code)
    assert {tickets[group_id].domain for group_id in batch.group_ids} == {"math"}
    scheduler.settle()
    asked = [scheduler.dispatch(1) for _ in range(8)]
    assert {ticket.domain for ticket in asked if ticket} == {"math"}
    scheduler.set_ratios({"math": 0.5, "code": 0.5})
    assert scheduler.state()["mixture"]["quotas"] == [2, 2]
    returned = next(
        ticket for _ in range(20) if (ticket := scheduler.dispatch(1)) and ticket.domain == "code"
    )
    assert returned.problem_id == tickets[code[0]].problem_id


def test_tiny_ratios_get_their_group_in_the_end():
    ratios = {"math": 0.99, "code": 0.01}
    scheduler = scheduler_of(ratios=ratios, groups_per_step=4)
    domains: list[str] = []
    for version in range(50):
        names: dict[int, str] = {}
        while ticket := scheduler.dispatch(version):
            names[ticket.group_id] = ticket.domain
            scheduler.resolve(ticket.group_id, "kept")
            domains.append(ticket.domain)
            if scheduler.compose(version):
                break
        scheduler.settle()
    numbers = scheduler.metrics()
    assert numbers["delivered_share.code"] == pytest.approx(0.01, abs=0.005)


def test_starvation_raises_one_alarm_until_the_domain_recovers():
    scheduler = scheduler_of(ratios={"math": 1.0}, groups_per_step=4)

    def resolve(outcome: Literal["kept", "filtered"], times: int) -> None:
        for _ in range(times):
            ticket = scheduler.dispatch(0)
            assert ticket is not None
            scheduler.resolve(ticket.group_id, outcome)

    resolve("filtered", 200)
    assert scheduler.starving == [] and scheduler.alarms() == []
    resolve("filtered", 100)
    assert scheduler.starving == ["math"]
    assert [message.split(":")[0] for message in scheduler.alarms()] == ["domain math"]
    assert scheduler.alarms() == []
    resolve("kept", 1)
    assert scheduler.starving == []


# --- checkpoint and journal ---------------------------------------------------------------------------


def reborn(scheduler: DomainScheduler, **options: Any) -> DomainScheduler:
    copy = scheduler_of(**options)
    copy.load(json.loads(json.dumps(scheduler.state())))
    return copy


def history(
    scheduler: DomainScheduler, *, picks: int, seed: int, in_flight: list[int], version: int
) -> list[Any]:
    """The answers to one random sequence of calls."""
    rng = random.Random(seed)
    waiting, answers = list(in_flight), []
    while picks > 0:
        ticket = scheduler.dispatch(version)
        answers.append(ticket)
        if ticket is not None:
            waiting.append(ticket.group_id)
            picks -= 1
        if waiting and (ticket is None or rng.random() < 0.9):
            outcome = rng.choice(["kept", "kept", "filtered", "failed"])
            scheduler.resolve(
                waiting.pop(rng.randrange(len(waiting))), outcome, loss_tokens=rng.randrange(99)
            )
        batch = scheduler.compose(version)
        answers.append(batch)
        if batch is not None:
            scheduler.settle()
            version += 1
    return answers


@settings(max_examples=15, deadline=None)
@given(kind=KINDS, unit=st.sampled_from(["kept_groups", "kept_tokens"]), steps=st.integers(0, 9))
def test_a_restored_scheduler_gives_the_next_thousand_picks(kind, unit, steps):
    options: dict[str, Any] = {"kind": kind, "unit": unit, "max_group_age": 2.0}
    scheduler = scheduler_of(**options)
    world = World(scheduler, keep=[0.6] * 5, speed=[9, 7, 5, 3, 1], failures=0.1, seed=steps)
    world.run(steps)
    world.dispatch()
    copy = reborn(scheduler, **options)
    assert copy.state() == scheduler.state()
    answers = [
        history(each, picks=1000, seed=steps, in_flight=list(world.in_flight), version=steps)
        for each in (scheduler, copy)
    ]
    assert answers[0] == answers[1]
    assert copy.state() == scheduler.state()


@settings(max_examples=15, deadline=None)
@given(kind=KINDS, steps=st.integers(0, 6))
def test_what_was_in_flight_is_asked_again_exactly_once_and_first(kind, steps):
    scheduler = scheduler_of(kind=kind, num_problems=500)
    world = World(scheduler, keep=[0.6] * 5, speed=[9, 7, 5, 3, 1], seed=steps)
    world.run(steps)
    world.dispatch()
    lost = list(world.in_flight.values())
    copy, twin = (reborn(scheduler, kind=kind, num_problems=500) for _ in range(2))
    for each in (copy, twin):
        each.requeue_in_flight()
        each.requeue_in_flight()
    assert copy.metrics()["pending.math"] == 0
    asked: list[Ticket] = []
    version = steps
    while len(asked) < 400:
        ticket = copy.dispatch(version)
        if ticket is None:
            assert copy.compose(version) is not None
            copy.settle()
            version += 1
            continue
        asked.append(ticket)
        copy.resolve(ticket.group_id, "kept")
    for name in NAMES:
        gone = [(t.problem_id, t.epoch) for t in lost if t.domain == name]
        again = [(t.problem_id, t.epoch) for t in asked if t.domain == name]
        assert again[: len(gone)] == gone[: len(again)]
        if kind == "deficit":
            assert len(set(again)) == len(again), "no problem twice in an epoch"
    args = {"picks": 300, "seed": 3, "in_flight": [], "version": version}
    third = reborn(twin, kind=kind, num_problems=500)
    assert history(twin, **args) == history(third, **args)


@settings(max_examples=20, deadline=None)
@given(kind=KINDS, max_lag=LAGS, age=st.sampled_from([0.0, 1.0, "off"]), seed=st.integers(0, 50))
def test_calls_that_answer_none_change_nothing(kind, max_lag, age, seed):
    """So a journal needs no record of them."""
    options: dict[str, Any] = {"kind": kind, "max_lag": max_lag, "max_group_age": age, "groups_per_step": 6}
    scheduler, replayed = scheduler_of(**options), scheduler_of(**options)
    rng, waiting, version = random.Random(seed), [], 0
    for _ in range(300):
        match rng.randrange(3):
            case 0 if ticket := scheduler.dispatch(version):
                assert replayed.dispatch(version) == ticket
                waiting.append(ticket.group_id)
            case 1 if waiting:
                group_id = waiting.pop(rng.randrange(len(waiting)))
                for each in (scheduler, replayed):
                    each.resolve(group_id, "kept", loss_tokens=5)
            case 2 if batch := scheduler.compose(version):
                assert replayed.compose(version) == batch
                for each in (scheduler, replayed):
                    each.settle()
                version += 1
            case _:
                pass
    assert scheduler.state() == replayed.state()


def test_every_problem_once_per_domain_epoch():
    scheduler = scheduler_of(num_problems=13, max_group_age="off")
    world = World(scheduler, keep=[0.5] * 5, speed=[5, 4, 3, 2, 1])
    world.run(30)
    turns = Counter((ticket.problem_id, ticket.epoch) for ticket in world.tickets.values())
    assert set(turns.values()) == {1}
    for name in NAMES:
        last = max(ticket.epoch for ticket in world.tickets.values() if ticket.domain == name)
        assert last >= 2
        for epoch in range(last):
            assert sum(turns[f"{name}{number}", epoch] for number in range(13)) == 13


# --- refusals -------------------------------------------------------------------------------------------


def test_wrong_inputs_are_named():
    with pytest.raises(InputError, match=r"domain code has ratio 0\.5 but no problems"):
        DomainScheduler(
            {"math": 0.5, "code": 0.5},
            {"math": ["a"]},
            groups_per_step=4,
            group_size=8,
            settings=Sampler(),
            max_lag=1.0,
            max_group_age="off",
            seed=0,
        )
    with pytest.raises(InputError, match="positive sum"):
        scheduler_of(ratios={"math": 0.0})
    scheduler = scheduler_of()
    with pytest.raises(InputError, match="ratios name the domains"):
        scheduler.set_ratios({"math": 1.0})
    with pytest.raises(InputError, match="the checkpoint has the domains"):
        scheduler_of(ratios={"math": 1.0}).load(scheduler.state())
    with pytest.raises(InputError, match="not those of the checkpoint"):
        scheduler_of(num_problems=3).load(scheduler.state())
    with pytest.raises(AssertionError, match="not outstanding"):
        scheduler.resolve(0, "kept")
