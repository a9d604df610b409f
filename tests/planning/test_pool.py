"""Servers that give every running answer one token a step."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apriel_mcore.planning.pool import Decode, Fleet

PLAIN = Decode(step_s=0.1, per_request_s=0.0, per_token_s=0.0, prefill_s=0.0)


def fleet(model: Decode = PLAIN, *, count: int = 1, places: int = 4) -> Fleet:
    return Fleet(model, count=count, places=places, prompt=0.0)


def test_an_answer_takes_its_tokens_times_the_step():
    one = fleet()
    one.start(7, 30, now=2.0)
    assert one.next_end() == pytest.approx(5.0)
    assert one.end() == 7
    assert one.next_end() == math.inf


def test_others_slow_an_answer_down_only_while_they_run():
    one = fleet(Decode(step_s=0.1, per_request_s=0.1, per_token_s=0.0, prefill_s=0.0))
    one.start(1, 10, now=0.0)
    one.start(2, 20, now=0.0)
    assert one.next_end() == pytest.approx(10 * 0.3)
    assert one.end() == 1
    assert one.next_end() == pytest.approx(10 * 0.3 + 10 * 0.2)


def test_a_prefill_stops_everybody():
    one = fleet(Decode(step_s=0.1, per_request_s=0.0, per_token_s=0.0, prefill_s=1.0))
    one.start(1, 10, now=0.0)
    one.start(2, 50, now=1.5)
    assert one.next_end() == pytest.approx(1.0 + 1.0 + 1.0)


def test_siblings_share_a_server_and_strangers_take_the_idle_one():
    two = fleet(Decode(step_s=0.1, per_request_s=0.1, per_token_s=0.0, prefill_s=0.0), count=2)
    two.start(1, 10, now=0.0)
    two.start(1, 10, now=0.0)
    two.start(2, 10, now=0.0)
    assert two.next_end() == pytest.approx(2.0)
    assert two.end() == 2


def test_servers_stand_still_while_they_load_weights():
    one = Fleet(PLAIN, count=1, places=4, prompt=0.0, swap_s=0.5)
    one.start(1, 30, now=0.0)
    one.begin_training(1.0, now=0.0)
    assert one.train_end == 1.0
    one.end_training(1.0)
    assert one.next_end() == pytest.approx(3.0 + 0.5)


@given(st.lists(st.integers(1, 500), min_size=1, max_size=12), st.integers(1, 3))
def test_every_answer_ends_once_and_time_never_runs_back(tokens, count):
    some = fleet(
        Decode(step_s=0.01, per_request_s=0.002, per_token_s=1e-6, prefill_s=0.05), count=count, places=12
    )
    for group, length in enumerate(tokens):
        some.start(group, length, now=0.0)
    ended, last = [], 0.0
    while (when := some.next_end()) < math.inf:
        assert when >= last
        last = when
        ended.append(some.end())
    assert sorted(ended) == list(range(len(tokens)))
