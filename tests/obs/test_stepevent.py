"""The step event counts what was trained, by domain, and measures lag at the version trained."""

import msgspec

from apriel_mcore.obs.stepevent import step_event
from apriel_mcore.types import Batch, Group, Problem, Rollout, Sample, ShapedReward, StepStats, Verdict

STATS = StepStats(
    loss=0.1,
    grad_norm=1.0,
    lr=1e-6,
    entropy=0.5,
    clip_fraction=0.0,
    logprob_abs_diff=0.01,
    kl_rollout_train=0.0,
    tokens_trained=50,
    packing_fill=0.9,
    seconds=1.0,
)
SAMPLE = Sample(
    domain="math", prompt_T=(1,) * 40, response_T=(1,) * 10, logprobs_T=(-1.0,) * 10, advantage=1.0, version=0
)
BATCH = Batch(samples=(SAMPLE,), rows=((),), num_rollouts=4, num_response_tokens=50, pad_multiple=1)


def group(domain: str, *, version: int, lengths: tuple[int, ...]) -> Group:
    problem = Problem(
        id="p", domain=domain, source="s", messages=(), verifier="math", reference={}, split_key=""
    )
    rollouts = tuple(
        Rollout(
            tokens_T=(1,) * length,
            logprobs_T=(-1.0,) * length,
            text="",
            finish="stop",
            version_first=version,
            version_last=version,
            verdict=Verdict(score=1.0, success=True, status="correct"),
            seconds=1.0,
            server="s",
        )
        for length in lengths
    )
    return Group(id=0, problem=problem, rollouts_G=rollouts, version=version)


def event_of(groups: list[Group], trained_before: dict[str, int]) -> dict[str, object]:
    shaped = [[ShapedReward(task=1.0, length=-0.5, factor=0.5) for _ in g.rollouts_G] for g in groups]
    return step_event(
        step=5,
        groups=groups,
        shaped_P_G=shaped,
        batch=BATCH,
        stats=STATS,
        targets={"math": 0.75, "code": 0.25},
        trained_before=trained_before,
        seconds={"train": 4.0, "wait": 1.0},
    )


def test_shares_are_of_all_groups_trained_so_far() -> None:
    event = event_of(
        [group("math", version=4, lengths=(2, 4)), group("code", version=2, lengths=(6, 8))], {"math": 2}
    )
    assert event["trained_share.math"] == 0.75
    assert event["trained_share.code"] == 0.25
    assert event["trained_groups.math"] == 1


def test_lag_is_counted_from_the_version_that_was_trained_on() -> None:
    event = event_of([group("math", version=4, lengths=(2, 4)), group("code", version=2, lengths=(6, 8))], {})
    assert (event["lag_mean"], event["lag_max"]) == (1.0, 2)


def test_task_reward_and_penalty_are_kept_apart() -> None:
    event = event_of([group("math", version=4, lengths=(2, 4))], {})
    assert (event["reward_mean"], event["length_penalty_mean"]) == (1.0, -0.25)
    assert event["tokens_mean.math"] == 3.0
    assert event["overlong_success.math"] == 0.0
    assert "reward.code" not in event
    assert event["tokens_per_s"] == 10.0


def test_right_answers_that_were_cut_off_are_told_apart() -> None:
    group_of_two = group("math", version=4, lengths=(2, 4))
    cut = msgspec.structs.replace(group_of_two.rollouts_G[1], finish="length")
    event = event_of(
        [msgspec.structs.replace(group_of_two, rollouts_G=(group_of_two.rollouts_G[0], cut))], {}
    )
    assert event["overlong_success.math"] == 0.5
    assert event["solve_rate.math"] == 1.0
