"""Problems come once per epoch; what was lost comes first; what always fails is set aside."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apriel_mcore.config.schema import CurriculumSettings, NoCurriculum, SolveRateCurriculum
from apriel_mcore.data.curriculum import curriculum_of
from apriel_mcore.data.epochs import EpochOrder, EpochState
from apriel_mcore.errors import InputError

OFF = NoCurriculum()
IDS = ["a", "b", "c", "d", "e"]


def order_of(
    ids: list[str] = IDS,
    *,
    seed: int = 0,
    domain: str = "math",
    replacement: bool = False,
    settings: CurriculumSettings = OFF,
) -> EpochOrder:
    curriculum = curriculum_of(settings, domain, seed=seed)
    return EpochOrder(domain, ids, seed=seed, max_attempts=3, replacement=replacement, curriculum=curriculum)


@given(count=st.integers(1, 40), seed=st.integers(0, 5))
def test_every_problem_once_per_epoch(count, seed):
    ids = [str(number) for number in range(count)]
    order = order_of(ids, seed=seed)
    for epoch in range(3):
        turns = [order.next() for _ in ids]
        assert sorted(turn.problem_id for turn in turns) == sorted(ids)
        assert {turn.epoch for turn in turns} == {epoch}


def test_with_replacement_every_draw_is_uniform_and_a_restored_order_goes_on():
    ids = [str(number) for number in range(20)]
    order = order_of(ids, replacement=True)
    drawn = [order.next().problem_id for _ in range(4000)]
    assert len(set(drawn[:20])) < 20, "an epoch repeats some problems and misses others"
    counts = [drawn.count(each) for each in ids]
    assert min(counts) > 140 and max(counts) < 260
    other = order_of(ids, replacement=True)
    other.load(order.state())
    assert [order.next() for _ in range(30)] == [other.next() for _ in range(30)]


def test_orders_differ_between_epochs_domains_and_seeds():
    ids = [str(number) for number in range(30)]

    def epoch(order: EpochOrder) -> list[str]:
        return [order.next().problem_id for _ in ids]

    one = order_of(ids)
    orders = [epoch(one), epoch(one), epoch(order_of(ids, seed=1)), epoch(order_of(ids, domain="code"))]
    assert len({tuple(each) for each in orders}) == 4
    assert epoch(order_of(ids)) == orders[0]


def test_failures_come_again_and_end_in_quarantine():
    order = order_of(["a", "b"])
    first = order.next()
    order.fail(first)
    again = order.next()
    assert (again.problem_id, again.attempt, again.epoch) == (first.problem_id, 1, 0)
    order.fail(again)
    last = order.next()
    order.fail(last)
    assert (last.attempt, order.num_quarantined) == (2, 1)
    other = order.next().problem_id
    assert other != first.problem_id
    assert [order.next().problem_id for _ in range(3)] == [other] * 3


def test_a_domain_is_never_emptied_by_quarantine():
    order = order_of(["a"])
    for _ in range(3):
        order.fail(order.next())
    assert order.num_quarantined == 1
    assert order.next().problem_id == "a"
    assert order.num_quarantined == 0


def test_put_first_goes_before_put_back():
    order = order_of()
    one, two, three = (order.next() for _ in range(3))
    order.put_back(three)
    order.put_first([one, two])
    assert [order.next() for _ in range(3)] == [one, two, three]


@given(calls=st.integers(0, 12))
def test_state_continues_the_order_after_json(calls):
    order = order_of()
    for number in range(calls):
        turn = order.next()
        if number % 3 == 0:
            order.fail(turn)
    copy = order_of()
    copy.load(msgspec.convert(json.loads(json.dumps(msgspec.to_builtins(order.state()))), EpochState))
    assert [copy.next() for _ in range(20)] == [order.next() for _ in range(20)]


def test_other_problems_are_refused():
    with pytest.raises(InputError, match="not those of the checkpoint"):
        order_of(["a", "b"]).load(order_of(["a", "c"]).state())
    with pytest.raises(InputError, match="same id"):
        order_of(["a", "a"])


def epoch_of(order: EpochOrder, epoch: int) -> list[str]:
    """Problems of one epoch, from its first turn on."""
    asked: list[str] = []
    while True:
        state = order.state()
        turn = order.next()
        if turn.epoch > epoch:
            order.load(state)
            return asked
        if turn.epoch == epoch:
            asked.append(turn.problem_id)


def test_what_is_too_easy_or_too_hard_sits_out_and_comes_back_now_and_then():
    ids = [str(number) for number in range(200)]
    order = order_of(ids, settings=SolveRateCurriculum(readmit=0.2))
    assert sorted(epoch_of(order, 0)) == sorted(ids), "what was never judged takes part"
    rates = dict.fromkeys(ids[:50], 0.0) | dict.fromkeys(ids[50:100], 1.0) | dict.fromkeys(ids[100:], 0.5)
    for problem_id, rate in rates.items():
        order.observe(problem_id, rate)
    second, third = epoch_of(order, 1), epoch_of(order, 2)
    for asked in (second, third):
        assert set(ids[100:]) <= set(asked)
        assert 5 <= len(set(asked) & set(ids[:100])) <= 40
    assert set(second) != set(third), "another epoch, another coin"
    order.observe("3", 0.25)
    assert "3" in epoch_of(order, 3)


def test_a_restored_order_knows_the_solve_rates_and_its_epoch():
    ids = [str(number) for number in range(30)]
    settings = SolveRateCurriculum(readmit=0.3)
    order, restored = order_of(ids, settings=settings), order_of(ids, settings=settings)
    for number, problem_id in enumerate(ids):
        order.observe(problem_id, number / 29)
    for _ in range(40):
        order.next()
    restored.load(msgspec.convert(json.loads(json.dumps(msgspec.to_builtins(order.state()))), EpochState))
    assert [order.next() for _ in range(90)] == [restored.next() for _ in range(90)]


def test_a_curriculum_never_empties_a_domain():
    order = order_of(["a", "b"], settings=SolveRateCurriculum(readmit=0.0))
    epoch_of(order, 0)
    order.observe("a", 1.0)
    order.observe("b", 0.0)
    assert sorted(epoch_of(order, 1)) == ["a", "b"]
