"""The search finds what closed forms miss, and stays within the lag that it was allowed."""

from collections.abc import Mapping

import msgspec
import pytest

from apriel_mcore.planning import search
from apriel_mcore.planning.outcome import Outcome, draw
from apriel_mcore.planning.splits import Split, splits
from tests.planning.asked import QUESTION, with_settings

GPUS = 64


def test_a_climb_ends_where_no_neighbour_is_faster():
    question = with_settings("train.groups_per_step=10")
    found = splits(question, GPUS, max_lag=4.0)
    best = search.best_at(question, GPUS, max_lag=4.0)
    first, last = (draw(question, split, max_lag=4.0, seed=0) for split in (found[0], best.split))
    assert last.step_s <= first.step_s
    assert best.split in found


def fake_search(monkeypatch: pytest.MonkeyPatch, seconds: Mapping[int, float], *, allowed: int) -> list[int]:
    """`best_at` answers with these step seconds; the list takes down what it was asked."""
    model = search.as_is(with_settings("train.groups_per_step=5"))
    asked: list[int] = []

    def best_at(
        question: object, num_gpus: int, *, max_lag: float, begin: Split | None, climbs: bool
    ) -> Outcome:
        assert climbs == (max_lag <= allowed)
        asked.append(int(max_lag))
        return msgspec.structs.replace(model, max_lag=max_lag, step_s=seconds[int(max_lag)])

    monkeypatch.setattr(search, "best_at", best_at)
    return asked


def test_the_least_lag_within_the_bound_is_chosen_and_more_is_looked_at(monkeypatch):
    seconds = {1: 100.0, 2: 50.0, 4: 20.0, 8: 19.8, 16: 10.0, 32: 9.9, 64: 9.8}
    asked = fake_search(monkeypatch, seconds, allowed=8)
    plan = search.plan(QUESTION, GPUS, most_lag=8.0)
    assert plan.chosen.max_lag == 4
    assert asked == [1, 2, 4, 8, 16, 32, 64]
    assert [one.max_lag for one in plan.by_lag] == asked


def test_two_doublings_without_gain_end_the_search(monkeypatch):
    asked = fake_search(monkeypatch, {1: 100.0, 2: 50.0, 4: 20.0, 8: 19.8, 16: 19.7}, allowed=8)
    search.plan(QUESTION, GPUS, most_lag=8.0)
    assert asked == [1, 2, 4, 8, 16][: len(asked)]
    assert asked[-1] == 16


def test_a_bound_between_powers_is_tried_itself(monkeypatch):
    asked = fake_search(monkeypatch, {1: 100.0, 2: 50.0, 3: 40.0, 4: 39.9, 8: 39.8}, allowed=3)
    assert search.plan(QUESTION, GPUS, most_lag=3.0).chosen.max_lag == 3
    assert 3 in asked


def test_the_recipes_own_lag_may_be_unbounded():
    own = search.as_is(with_settings("rollout.max_lag=unbounded", "rollout.max_groups_in_flight=16"))
    assert own.max_lag == float("inf")
    assert own.split.groups_in_flight == 16
