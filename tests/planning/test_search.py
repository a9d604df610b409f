"""Plans of the 15B recipe: they fit, use the GPUs they were given, and react as they must."""

from pathlib import Path

import msgspec
import pytest

from apriel_mcore.config.load import load
from apriel_mcore.errors import InputError
from apriel_mcore.planning import hardware, search
from apriel_mcore.planning.workload import ASSUMED
from tests.shapes import SHAPES

QUESTION = search.Question(
    config=load(Path("recipes/apriel_reasoner_15b.toml"), ["train.groups_per_step=32"]),
    shape=SHAPES["apriel_15b"],
    profile=hardware.load("h100"),
    lengths=ASSUMED,
)


def test_splits_use_no_more_gpus_than_there_are_and_come_fastest_first():
    found = search.splits(QUESTION, 64, max_lag=2.0)
    used = [split.parallel.world_size + split.num_servers * split.server_tensor for split in found]
    assert max(used) <= 64
    assert [split.step_s for split in found] == sorted(split.step_s for split in found)


def test_too_few_gpus_are_refused():
    with pytest.raises(InputError, match="--gpus 2"):
        search.splits(QUESTION, 2, max_lag=2.0)


def test_the_simulation_keeps_the_bound_on_the_lag_and_repeats_itself():
    split = search.splits(QUESTION, 64, max_lag=2.0)[0]
    one = search.simulate(QUESTION, split, max_lag=2.0, num_steps=6, seed=0)
    assert one == search.simulate(QUESTION, split, max_lag=2.0, num_steps=6, seed=0)
    assert one.lag_max <= 3
    assert one.step_s >= split.train_s * 0.7


def test_strictly_on_policy_waits_longer():
    split = search.splits(QUESTION, 64, max_lag=2.0)[0]
    steps = [search.simulate(QUESTION, split, max_lag=lag, num_steps=6, seed=0) for lag in (0.0, 4.0)]
    assert steps[0].lag_max == 0
    assert steps[0].step_s > 1.1 * steps[1].step_s


def test_faster_memory_makes_generation_faster():
    device = msgspec.structs.replace(QUESTION.profile.device, memory_gb_s=2 * 3350.0)
    profile = msgspec.structs.replace(QUESTION.profile, device=device)
    faster = msgspec.structs.replace(QUESTION, profile=profile)
    slow, fast = (search.splits(one, 64, max_lag=2.0)[0] for one in (QUESTION, faster))
    assert fast.step_s < slow.step_s


def with_settings(*overrides: str) -> search.Question:
    config = load(Path("recipes/apriel_reasoner_15b.toml"), ["train.groups_per_step=32", *overrides])
    return msgspec.structs.replace(QUESTION, config=config)


def test_fp8_shortens_the_trainers_step_and_fp8_weights_the_publish():
    plain = search.splits(QUESTION, 64, max_lag=2.0)[0]
    trained = with_settings("train.seq_len=20480", "train.fp8.kind=tensorwise")
    tokens, context = QUESTION.mean.trained_tokens, QUESTION.mean.context
    seconds = [
        search.train_seconds(one, plain.parallel, plain.recompute, tokens, context)
        for one in (with_settings("train.seq_len=20480"), trained)
    ]
    assert seconds[1] < seconds[0]
    served = with_settings("publish.weights=fp8_block")
    fixed = QUESTION.profile.publish.fixed_s
    halved = search.publish_seconds(served, 1) - fixed
    assert halved < 0.6 * (search.publish_seconds(QUESTION, 1) - fixed)
