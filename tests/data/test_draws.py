"""The reference rules pick what their formulas say, number by number of the random stream."""

import random

import pytest

from apriel_mcore.config.schema import Sampler
from apriel_mcore.data.draws import DomainDraws, paper_chances
from apriel_mcore.data.sampler import DomainScheduler

RATIOS = {"math": 0.35, "code": 0.25, "logic": 0.15, "instruction": 0.15, "calls": 0.10}


def oracle(rng: random.Random, counts: dict[str, int], *, adaptive: bool) -> str:
    """The formula as it is printed: alpha = clip(w / share, 0.1, 10), p = w alpha / sum w alpha."""
    total = sum(counts.values())
    chances: dict[str, float] = {}
    for name, ratio in RATIOS.items():
        alpha = 1.0
        if adaptive and total >= 50:
            alpha = min(10.0, max(0.1, ratio / (counts[name] / total))) if counts[name] else 10.0
        chances[name] = ratio * alpha
    chosen = rng.random() * sum(chances.values())
    for name, chance in chances.items():
        chosen -= chance
        if chosen < 0:
            return name
    return name


@pytest.mark.parametrize("kind", ["paper", "static"])
def test_forty_thousand_draws_equal_the_formula(kind):
    scheduler = DomainScheduler(
        RATIOS,
        {name: [f"{name}{number}" for number in range(50)] for name in RATIOS},
        groups_per_step=128,
        group_size=8,
        settings=Sampler(kind=kind, unit="groups", compose="fifo"),
        max_lag="unbounded",
        max_group_age="off",
        seed=11,
    )
    rng, events = random.Random(11), random.Random(5)
    counts = dict.fromkeys(RATIOS, 0)
    in_flight: list[tuple[int, str]] = []
    for pick in range(40_000):
        ticket = scheduler.dispatch(0)
        assert ticket is not None
        assert ticket.domain == oracle(rng, counts, adaptive=kind == "paper"), pick
        in_flight.append((ticket.group_id, ticket.domain))
        while len(in_flight) > 100:
            group_id, domain = in_flight.pop(events.randrange(len(in_flight)))
            # Completed work counts before any filter; what failed did not complete.
            outcome = events.choice(["kept", "filtered", "failed"])
            scheduler.resolve(group_id, outcome)
            counts[domain] += 8 * (outcome != "failed")
        if pick % 128 == 127 and scheduler.compose(0):
            scheduler.settle()


def test_paper_chances():
    assert paper_chances([0.5, 0.5], [49, 0]) == [0.5, 0.5]
    assert paper_chances([0.5, 0.5], [50, 0]) == [0.25, 5.0]
    assert paper_chances([0.8, 0.2], [20, 80]) == pytest.approx([0.8 * 4, 0.2 * 0.25])
    assert paper_chances([0.95, 0.05], [1, 99]) == pytest.approx([9.5, 0.005])


def test_only_open_domains_are_picked():
    draws = DomainDraws("static", seed=0)
    assert {draws.pick([0.9, 0.05, 0.05], [0, 0, 0], [1, 2]) for _ in range(200)} == {1, 2}


def test_state_continues_the_stream():
    draws, copy = DomainDraws("static", seed=3), DomainDraws("static", seed=4)
    for _ in range(10):
        draws.pick([0.5, 0.5], [0, 0], [0, 1])
    copy.load(draws.state())
    picks = [[each.pick([0.5, 0.5], [0, 0], [0, 1]) for _ in range(100)] for each in (draws, copy)]
    assert picks[0] == picks[1]
