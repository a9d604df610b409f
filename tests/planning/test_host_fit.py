"""A host of known speeds ran; its constants are found again from what it left behind."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest

from apriel_mcore.config.load import load
from apriel_mcore.config.schema import RunConfig
from apriel_mcore.errors import InputError
from apriel_mcore.obs.runlog import Event
from apriel_mcore.obs.spans import Span
from apriel_mcore.planning import host_check, host_fit
from apriel_mcore.planning.past_run import PastRun, num_tokens
from apriel_mcore.planning.pool import Decode
from apriel_mcore.planning.shared_host import Host, HostPublish
from apriel_mcore.types import Group
from tests.planning.test_measured import group

TRUE = Host(
    num_cores=2,
    decode=Decode(step_s=0.03, per_request_s=0.002, per_token_s=0.0, prefill_s=0.05),
    train_fixed_s=0.5,
    train_token_s=0.003,
    parallel_share=0.8,
    publish={1: HostPublish(seconds=0.4, beside=0.8, swap_s=0.3)},
    trainer_beside=0.8,
    server_beside=0.7,
)
DOMAINS = ("math", "code", "logic", "instruction", "calls")


def with_seconds(groups: Sequence[Group]) -> list[Group]:
    """Answers that began together on one server."""
    tokens = [len(rollout.tokens_T) for one in groups for rollout in one.rollouts_G]

    def seconds(num: int) -> float:
        decode = TRUE.decode
        running = sum(min(num, other) for other in tokens)
        return len(tokens) * decode.prefill_s + num * decode.step_s + running * decode.per_request_s

    return [
        msgspec.structs.replace(
            one,
            rollouts_G=tuple(
                msgspec.structs.replace(rollout, seconds=seconds(len(rollout.tokens_T)))
                for rollout in one.rollouts_G
            ),
        )
        for one in groups
    ]


def groups_of(random: np.random.Generator, num: int) -> list[Group]:
    return with_seconds(
        [group(number, DOMAINS[number % 5], random.integers(2, 40, 4).tolist()) for number in range(num)]
    )


def config_of(overrides: Sequence[str] = ()) -> RunConfig:
    return load(Path("recipes/quickstart.toml"), ["rollout.group_size=4", *overrides])


def run_of(
    overrides: Sequence[str], groups: list[list[Group]], steps: list[Event], spans: list[Span]
) -> PastRun:
    return PastRun(
        name="made", config=config_of(overrides), num_cores=2, steps=steps, groups=groups, spans=spans
    )


def turns(threads: int, num_groups: int) -> PastRun:
    """Nobody beside anybody."""
    random = np.random.default_rng(num_groups)
    groups = [groups_of(random, num_groups) for _ in range(5)]
    steps: list[Event] = [
        {"step": number, "time_train_s": TRUE.step_seconds(num_tokens(one, config_of()), threads=threads)}
        for number, one in enumerate(groups)
    ]
    publish = TRUE.publish_to(1)
    spans = [
        Span("publish", "trainer", 0.0, publish.seconds),
        Span("take weights", "server-0", 0.0, publish.swap_s),
    ] * 2
    overrides = [f"train.threads={threads}", f"train.groups_per_step={num_groups}"]
    overrides += ["rollout.max_lag=0", "advantage.filter_on=off"]
    return run_of(overrides, groups, steps, spans)


def overlap() -> PastRun:
    """Eight answers run all the time; the trainer works or publishes but for half a second of each step."""
    groups = [groups_of(np.random.default_rng(0), 5)] * 6
    seconds = TRUE.step_seconds(num_tokens(groups[0], config_of()), threads=1) / TRUE.trainer_beside
    publish_s = TRUE.publish_to(1).seconds / TRUE.publish_to(1).beside
    spans: list[Span] = []
    steps: list[Event] = []
    requests = tokens = now = 0.0
    for number in range(6):
        spans += [
            Span("train", "trainer", now, seconds),
            Span("publish", "trainer", now + seconds, publish_s),
        ]
        now += seconds + publish_s + 0.5
        worked = (seconds + publish_s) * TRUE.server_beside + 0.5
        started = 6
        decoding = worked - started * TRUE.decode.prefill_s
        requests, tokens = requests + started, tokens + decoding * TRUE.decode.tokens_per_s(8, 0.0)
        steps.append(
            {"step": number, "time": now, "time_train_s": seconds}
            | {"feed.pool.requests": requests, "feed.pool.tokens": tokens}
        )
    spans += [Span("answer", "server-0", -1.0, now + 2.0)] * 8
    return run_of(["train.threads=1", "rollout.max_lag=2"], groups, steps, spans)


def test_a_shared_prompt_is_computed_once():
    one = groups_of(np.random.default_rng(0), 1)
    tokens = [num_tokens(one, config_of([f"train.share_prompts={value}"])) for value in ("true", "false")]
    assert tokens[1] - tokens[0] == 3 * len(one[0].problem.prompt_T) > 0


def test_the_constants_are_found_again():
    found = host_fit.fit([turns(1, 5), turns(1, 10), turns(2, 5), overlap()])
    for name, value in msgspec.structs.asdict(TRUE.decode).items():
        assert getattr(found.decode, name) == pytest.approx(value, rel=0.02), name
    for name in ("train_fixed_s", "train_token_s", "parallel_share", "trainer_beside"):
        assert getattr(found, name) == pytest.approx(getattr(TRUE, name), rel=0.02), name
    assert msgspec.structs.astuple(found.publish_to(1)) == pytest.approx(
        msgspec.structs.astuple(TRUE.publish_to(1))
    )
    assert found.server_beside == pytest.approx(TRUE.server_beside, rel=0.05)


def test_a_kind_of_run_that_is_missing_is_asked_for():
    with pytest.raises(InputError, match="max_lag"):
        host_fit.fit([turns(1, 5), overlap()])


def test_publishes_without_an_answer_beside_them_say_nothing():
    run = overlap()
    idle = msgspec.structs.replace(run, spans=[span for span in run.spans if span.name != "answer"])
    with pytest.raises(InputError, match="made: no server had answers while weights were published"):
        host_fit.fit([turns(1, 5), turns(1, 10), turns(2, 5), idle])


def test_the_prediction_takes_nothing_but_the_recipe_of_the_run():
    fitted = [turns(1, 10)]
    groups = [one for step in fitted[0].groups for one in step]
    run = overlap()
    empty = msgspec.structs.replace(run, groups=[], spans=[], steps=[{}] * len(run.steps))
    assert host_check.predict(run, TRUE, groups) == host_check.predict(empty, TRUE, groups)


def test_a_faster_server_raises_the_predicted_pace():
    groups = [one for step in turns(1, 10).groups for one in step]
    slow = msgspec.structs.replace(TRUE, server_beside=0.2)
    paces = [host_check.predict(overlap(), host, groups) for host in (slow, TRUE)]
    assert paces[0].rollouts_per_s < 0.8 * paces[1].rollouts_per_s


def test_a_number_of_servers_that_no_run_had_is_asked_for():
    run = overlap()
    servers = msgspec.structs.replace(run.servers, count=2)
    rollout = msgspec.structs.replace(run.config.rollout, servers=servers)
    two = msgspec.structs.replace(run, config=msgspec.structs.replace(run.config, rollout=rollout))
    groups = [one for step in turns(1, 10).groups for one in step]
    with pytest.raises(InputError, match="count=2"):
        host_check.predict(two, TRUE, groups)


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(InputError, match=r"not_a_run: no run: it has no resolved\.toml"):
        PastRun.read(tmp_path / "not_a_run")
