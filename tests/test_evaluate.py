"""The held-out evaluation: what it records, what it repeats, and what a stop request does to it."""

from collections.abc import Iterator

import pytest

from apriel_mcore.errors import PoolError, VerifierError
from apriel_mcore.evaluate import HeldOutEvaluator
from apriel_mcore.fakes import FakeJudge, FakePool
from apriel_mcore.obs.runlog import Event, RunLog
from apriel_mcore.rollout.ask import Asker
from apriel_mcore.rollout.event_loop import EventLoopThread
from apriel_mcore.rollout.reference import NoScorer
from tests.rollout.test_feed import SOLVE_RATES, problems_of, recipe


@pytest.fixture
def thread() -> Iterator[EventLoopThread]:
    thread = EventLoopThread()
    yield thread
    thread.close()


class Kept:
    """Keeps events."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def write(self, event: Event) -> None:
        self.events.append(event)

    def close(self, *, failed: bool) -> None:
        del failed


class Evaluation:
    """An evaluator on fakes, the events it wrote, and a stop request to be made."""

    def __init__(self, thread: EventLoopThread, pool: FakePool, *, crash_rate: float = 0.0) -> None:
        self.config = recipe()
        self.pool = pool
        self.log = Kept()
        self.asker = Asker(pool, FakeJudge(SOLVE_RATES, crash_rate=crash_rate), NoScorer())
        self.stop = False
        problems = problems_of(self.config).values()
        domains = list(self.config.domains)
        self.evaluator = HeldOutEvaluator(
            self.config,
            held_out={d: [one for one in problems if one.domain == d] for d in domains},
            constant=dict.fromkeys(domains, 0.1),
            asker=self.asker,
            log=RunLog((self.log,)),
            run_async=thread.run,
            stop_requested=lambda: self.stop,
            accuracy={},
        )

    def recorded(self) -> list[Event]:
        return [event for event in self.log.events if event["event"] == "eval"]


def test_each_domain_is_answered_and_recorded_once(thread: EventLoopThread) -> None:
    one = Evaluation(thread, FakePool())
    one.evaluator.run_if_due(0)
    one.evaluator.run_if_due(0)
    (event,) = one.recorded()
    wanted = min(one.config.eval.problems_per_domain, 40) * one.config.eval.samples
    for domain in one.config.domains:
        assert event[f"count.{domain}"] == wanted
        assert abs(event[f"accuracy.{domain}"] - SOLVE_RATES[domain]) < 0.5
    assert one.evaluator.accuracy == {0: {d: event[f"accuracy.{d}"] for d in one.config.domains}}
    assert not one.evaluator.gave_up


def test_only_due_steps_are_evaluated(thread: EventLoopThread) -> None:
    one = Evaluation(thread, FakePool())
    last, every = one.config.train.num_steps, one.config.eval.every
    for step in range(last + 1):
        one.evaluator.run_if_due(step)
    due = {0, last} | (set(range(0, last + 1, every)) if every else set())
    assert [event["step"] for event in one.recorded()] == sorted(due)


def test_a_broken_judge_is_counted_and_never_a_wrong_answer(thread: EventLoopThread) -> None:
    one = Evaluation(thread, FakePool(), crash_rate=0.3)
    one.evaluator.run_if_due(0)
    (event,) = one.recorded()
    asked = len(one.pool.asked)
    assert one.asker.lost["eval_judge"] > 0
    assert sum(event[f"count.{d}"] for d in one.config.domains) == asked - one.asker.lost["eval_judge"]


def test_no_verdict_at_all_is_an_error(thread: EventLoopThread) -> None:
    one = Evaluation(thread, FakePool(), crash_rate=1.0)
    with pytest.raises(VerifierError, match="evaluation of step 0: not one of"):
        one.evaluator.run_if_due(0)


def test_a_stop_request_leaves_it_to_the_next_start(thread: EventLoopThread) -> None:
    one = Evaluation(thread, FakePool(mean_delay_s=1e6))
    one.stop = True
    one.evaluator.run_if_due(0)  # would take days
    assert one.evaluator.gave_up
    assert one.recorded() == []
    assert one.evaluator.accuracy == {}
    assert "left to the next start" in one.log.events[-1]["message"]


def test_a_lost_pool_is_an_error(thread: EventLoopThread) -> None:
    one = Evaluation(thread, FakePool())
    one.pool.alive = False
    with pytest.raises(PoolError):
        one.evaluator.run_if_due(0)
