from pathlib import Path

import pytest

from apriel_mcore.bench.peers import ours
from apriel_mcore.bench.peers.curve import JudgedGroup, Step
from apriel_mcore.config.load import load
from apriel_mcore.rollout.journal import Dispatched, Resolved, Settled
from apriel_mcore.types import Group, Outcome, Problem, Rollout, Verdict

QUICKSTART = Path(__file__).parents[3] / "recipes" / "quickstart.toml"


def dispatched(group_id: int) -> Dispatched:
    return Dispatched(version=0, group_id=group_id, domain="math", problem_id="p")


def dropped(group_id: int, outcome: Outcome, solve_rate: float) -> Resolved:
    return Resolved(group_id=group_id, outcome=outcome, loss_tokens=0, solve_rate=solve_rate, group="dropped")


def kept(group_id: int, successes: list[bool]) -> Resolved:
    problem = Problem(
        id="p", domain="math", source="s", messages=(), verifier="math", reference={}, split_key="p"
    )
    rollouts = tuple(
        Rollout(
            tokens_T=(1, 2),
            logprobs_T=(0.0, 0.0),
            text="2",
            finish="stop",
            version_first=0,
            version_last=0,
            verdict=Verdict(score=float(success), success=success, status="correct" if success else "wrong"),
            seconds=1.0,
            server="server-0",
        )
        for success in successes
    )
    group = Group(id=group_id, problem=problem, rollouts_G=rollouts, version=0)
    return Resolved(group_id=group_id, outcome="kept", loss_tokens=0, solve_rate=0.0, group=group)


def test_a_group_counts_at_the_end_of_its_step_whether_it_was_trained_or_not() -> None:
    config = load(QUICKSTART, ours.UNTIL_STOPPED)
    events = [
        {"event": "phase", "time": 100.0, "message": "building the trainer"},
        {"event": "phase", "time": 110.0, "message": "publishing the first weights"},
        {"event": "step", "time": 120.0, "step": 1, "samples": 78},
        {"event": "step", "time": 135.0, "step": 2, "samples": 80},
    ]
    records = [
        Settled(version=0),
        *map(dispatched, range(4)),
        kept(0, [True, True, False, False]),
        dropped(1, "filtered", 1.0),
        Settled(version=1),
        dropped(2, "failed", 0.0),
        dropped(3, "filtered", 0.0),
        Settled(version=2),
        dispatched(4),
        dropped(4, "filtered", 1.0),  # in the step that was cut off
    ]
    trail = ours.trail(config, events, records, began=90.0)
    assert trail.setup_s == 20.0
    assert trail.steps == [Step(10.0, 78, 78), Step(25.0, 80, 80)]
    size = config.rollout.group_size
    assert trail.groups == [
        JudgedGroup(10.0, "math", pytest.approx(0.5), 4),
        JudgedGroup(10.0, "math", 1.0, size),
        JudgedGroup(25.0, "math", 0.0, size),
    ]
