"""Reward tables, and what difficulty-aware shaping guarantees of the order of answers."""

import itertools
from collections.abc import Mapping
from typing import get_args, get_type_hints

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from apriel_mcore.config.schema import (
    DifficultyAwareLengthPenalty,
    LengthPenalty,
    NoLengthPenalty,
    NoReferenceReward,
    Reward,
    RunConfig,
    StandardLengthPenalty,
)
from apriel_mcore.loss.reward import TABLES, shape, shape_group, task_reward
from apriel_mcore.types import Finish, Group, Problem, Rollout, Status, Verdict

BUDGET = 160
BUFFER = 20
SCORES: dict[Status, float] = {"correct": 1.0, "partial": 0.25}
STATUSES: tuple[Status, ...] = get_args(Status)


def verdict(status: Status, score: float | None = None) -> Verdict:
    if score is None:
        score = SCORES.get(status, 0.0)
    return Verdict(score=score, success=status == "correct", status=status)


def rollout(status: Status, length: int, finish: Finish = "stop", score: float | None = None) -> Rollout:
    return Rollout(
        tokens_T=(7,) * length,
        logprobs_T=(-0.5,) * length,
        text="",
        finish=finish,
        version_first=0,
        version_last=0,
        verdict=verdict(status, score),
        seconds=1.0,
        server="a",
    )


def group(*rollouts_G: Rollout) -> Group:
    problem = Problem(
        id="p",
        domain="math",
        source="unit",
        messages=(),
        verifier="math",
        reference={},
        split_key="p",
        prompt_T=(1, 2),
    )
    return Group(id=0, problem=problem, rollouts_G=rollouts_G, version=0)


def totals(length: LengthPenalty, *rollouts_G: Rollout, table: str = "success_and_format") -> list[float]:
    shaped_G = shape(
        group(*rollouts_G), table=table, reference=NoReferenceReward(), length=length, budget=BUDGET
    )
    return [shaped.total for shaped in shaped_G]


# --- tables ----------------------------------------------------------------------------------------


def test_every_table_of_the_recipe_exists() -> None:
    assert set(TABLES) == set(get_args(get_type_hints(Reward)["table"]))


@pytest.mark.parametrize(
    ("table", "finished", "truncated"),
    [  # order: correct, partial at 0.25, wrong, no_answer, unparsable, timeout
        ("success_and_format", (1, 0.25, 0, 0, 0, 0), (0, 0, 0, 0, 0, 0)),
        ("pure_success", (1, 0.25, 0, 0, 0, 0), (1, 0.25, 0, 0, 0, 0)),
        ("success", (1, 0.25, 0, 0, 0, 0), (0.5, 0.125, 0, 0, 0, 0)),
        ("base", (1, -0.125, -0.5, -1, -1, -1), (-1, -1, -1, -1, -1, -1)),
    ],
)
def test_each_cell(table: str, finished: tuple[float, ...], truncated: tuple[float, ...]) -> None:
    assert STATUSES == ("correct", "partial", "wrong", "no_answer", "unparsable", "timeout")
    for status, at_end, at_budget in zip(STATUSES, finished, truncated, strict=True):
        assert task_reward(verdict(status), truncated=False, table=table) == at_end
        assert task_reward(verdict(status), truncated=True, table=table) == at_budget


@given(st.sampled_from(sorted(TABLES)), st.booleans(), st.floats(0, 1), st.floats(0, 1))
def test_partial_credit_lies_between_wrong_and_correct_and_grows_with_the_score(
    table: str, truncated: bool, one: float, other: float
) -> None:
    low, high = (
        task_reward(verdict("partial", score), truncated=truncated, table=table)
        for score in sorted((one, other))
    )
    wrong = task_reward(verdict("wrong"), truncated=truncated, table=table)
    correct = task_reward(verdict("correct"), truncated=truncated, table=table)
    assert wrong <= low <= high <= correct


@pytest.mark.parametrize(
    "broken",
    [
        Verdict(score=float("nan"), success=False, status="wrong"),
        Verdict(score=1.5, success=True, status="correct"),
        Verdict(score=1.0, success=False, status="correct"),
        Verdict(score=1.0, success=True, status="partial"),
    ],
)
def test_a_verdict_that_contradicts_itself_is_never_scored(broken: Verdict) -> None:
    with pytest.raises(AssertionError, match="judge"):
        task_reward(broken, truncated=False, table="base")


# --- shaping ---------------------------------------------------------------------------------------


def test_parts_are_kept_apart_and_add_up() -> None:
    shaped_G = shape(
        group(rollout("correct", 150), rollout("wrong", 150), rollout("correct", 160, "length")),
        table="success_and_format",
        length=DifficultyAwareLengthPenalty(buffer=BUFFER, gamma=2.0, failure_scale=0.5),
        reference=NoReferenceReward(),
        budget=BUDGET,
    )
    assert [(shaped.task, shaped.length, shaped.factor) for shaped in shaped_G] == [
        (1.0, -0.5, (2 / 3) ** 2),
        (0.0, -0.5, 0.5),
        (0.0, -1.0, 1.0),
    ]
    assert [shaped.total for shaped in shaped_G] == pytest.approx([1 - 2 / 9, -0.25, -1.0])


def test_partial_credit_is_not_a_success() -> None:
    dap = DifficultyAwareLengthPenalty(buffer=BUFFER)
    assert totals(dap, rollout("correct", 150), rollout("partial", 1, score=0.9)) == [0.75, 0.9]


def test_without_a_length_penalty_the_total_is_the_task_reward() -> None:
    assert totals(NoLengthPenalty(), rollout("correct", 160), rollout("wrong", 160, "length")) == [1.0, 0.0]


def config_with(overrides: Mapping[str, float], length: Mapping[str, object]) -> RunConfig:
    recipe = {
        "name": "unit",
        "model": {"kind": "folder", "path": "model"},
        "domains": {"math": {"ratio": 1.0, "sources": {"a": {"kind": "jsonl", "path": "a"}}, **overrides}},
        "rollout": {"max_output_tokens": 200, "servers": {"kind": "local"}},
        "reward": {"table": "base", "length": length},
        "train": {"num_steps": 1, "groups_per_step": 1, "seq_len": 512, "optimizer": {"lr": 1e-6}},
    }
    return msgspec.convert(recipe, RunConfig)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({}, [-0.5, 0.0]),  # 30 tokens into a ramp of 60 that ends at 200
        ({"max_output_tokens": 180}, [-5 / 6, 0.0]),
        ({"length_buffer": 40}, [-0.25, 0.0]),
        ({"max_output_tokens": 180, "length_buffer": 40}, [-0.75, 0.0]),
    ],
)
def test_a_domain_may_have_its_own_budget_and_buffer(
    overrides: dict[str, int], expected: list[float]
) -> None:
    config = config_with(overrides, {"kind": "standard", "buffer": 60})
    shaped_G = shape_group(group(rollout("correct", 170), rollout("wrong", 9)), config)
    assert [shaped.length for shaped in shaped_G] == pytest.approx(expected)
    assert [shaped.task for shaped in shaped_G] == [1.0, -0.5]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({}, [0.5, 0.5]),  # one of two solved; failures at the section's scale
        ({"length_gamma": 2}, [0.25, 0.5]),
        ({"length_gamma": 0}, [1.0, 0.5]),
        ({"length_failure_scale": 0.0}, [0.5, 0.0]),
    ],
)
def test_a_domain_may_have_its_own_difficulty(overrides: dict[str, float], expected: list[float]) -> None:
    length = {"kind": "difficulty_aware", "buffer": 60, "failure_scale": 0.5}
    config = config_with(overrides, length)
    shaped_G = shape_group(group(rollout("correct", 170), rollout("wrong", 9)), config)
    assert [shaped.factor for shaped in shaped_G] == expected


def test_truncated_answers_masked_beside_the_guard_are_remarked_on() -> None:
    config = config_with({}, {"kind": "difficulty_aware", "buffer": 60})
    assert config.remarks() == []
    masked = msgspec.structs.replace(
        config, advantage=msgspec.structs.replace(config.advantage, mask_truncated=True)
    )
    assert "mask_truncated" in masked.remarks()[0]


rollouts = st.builds(
    rollout,
    st.sampled_from(STATUSES),
    st.integers(1, 2 * BUDGET),
    st.sampled_from(get_args(Finish)),
)
groups_G = st.lists(rollouts, min_size=2, max_size=8)
difficulty_aware = st.builds(
    DifficultyAwareLengthPenalty,
    buffer=st.just(BUFFER),
    gamma=st.floats(0.25, 4),
    failure_scale=st.floats(0, 1),
)


@given(groups_G, difficulty_aware)
@example([rollout("correct", 1), rollout("wrong", BUDGET, "length")], DifficultyAwareLengthPenalty(buffer=20))
def test_rewards_stay_within_minus_one_and_one(
    rollouts_G: list[Rollout], length: DifficultyAwareLengthPenalty
) -> None:
    assert all(-1.0 <= total <= 1.0 for total in totals(length, *rollouts_G))


def test_the_range_is_attained() -> None:
    dap = DifficultyAwareLengthPenalty(buffer=BUFFER)
    assert totals(dap, rollout("correct", 1), rollout("wrong", BUDGET, "length")) == [1.0, -1.0]


@given(groups_G, difficulty_aware, st.sampled_from(["success_and_format", "pure_success", "success", "base"]))
def test_a_finished_right_answer_is_above_every_failure_without_partial_credit(
    rollouts_G: list[Rollout], length: DifficultyAwareLengthPenalty, table: str
) -> None:
    """docs/mathematics.md: r >= 1 - s^gamma > 0 for the right one, r <= 0 for the other."""
    total_G = totals(length, *rollouts_G, table=table)
    for (right, r_right), (failed, r_failed) in itertools.permutations(
        zip(rollouts_G, total_G, strict=True), 2
    ):
        if right.verdict.success and not right.truncated and failed.verdict.score == 0.0:
            assert r_right > r_failed


def test_the_standard_penalty_lets_a_failure_tie_with_a_right_answer() -> None:
    tie_G = (rollout("correct", BUDGET), rollout("wrong", 1))
    assert totals(StandardLengthPenalty(buffer=BUFFER), *tie_G) == [0.0, 0.0]
    gamma_zero = DifficultyAwareLengthPenalty(buffer=BUFFER, gamma=0.0)
    assert totals(gamma_zero, *tie_G) == [0.0, 0.0]


def test_a_truncated_right_answer_may_fall_below_a_failure() -> None:
    dap = DifficultyAwareLengthPenalty(buffer=BUFFER)
    assert totals(dap, rollout("correct", BUDGET, "length"), rollout("wrong", 1)) == [-1.0, 0.0]
