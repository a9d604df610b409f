"""Ways to share out GPUs: they fit, use no more than there are, and react as they must."""

import msgspec
import pytest

from apriel_mcore.config.schema import Parallel
from apriel_mcore.errors import InputError
from apriel_mcore.memory import GB, RESERVED_BYTES, training_memory
from apriel_mcore.planning.layouts import Trainer, train_seconds, trainers
from apriel_mcore.planning.splits import own_split, publish_of, splits
from tests.planning.asked import QUESTION, with_settings

FOUND = splits(QUESTION, 64, max_lag=2.0)


def test_splits_use_no_more_gpus_than_there_are_and_come_fastest_first():
    assert max(split.num_gpus for split in FOUND) <= 64
    assert [split.step_s for split in FOUND] == sorted(split.step_s for split in FOUND)


def test_too_few_gpus_are_refused():
    with pytest.raises(InputError, match="--gpus 2"):
        splits(QUESTION, 2, max_lag=2.0)


def test_longer_rows_and_interleaved_stages_are_tried_and_fit():
    found = [trainer for trainer, _ in trainers(QUESTION, QUESTION.mean, 64)]
    assert {one.row_tokens for one in found} == {20000, 40000}
    assert {one.parallel.virtual_pipeline for one in found} > {1, 2}
    room = QUESTION.profile.device.memory_gb * GB - RESERVED_BYTES
    for one in found[:: len(found) // 20]:
        train = msgspec.structs.replace(
            QUESTION.config.train, parallel=one.parallel, recompute=one.recompute, seq_len=one.row_tokens
        )
        stages = training_memory(QUESTION.shape, train, num_micro_batches=256, weights_in="as_trained")
        assert max(stage.total for stage in stages) <= room


def test_a_rank_trains_whole_rounds_of_an_interleaved_schedule():
    found = trainers(QUESTION, QUESTION.mean, 64)
    trainer = next(one for one, _ in found if one.parallel.virtual_pipeline > 1 and one.parallel.data == 1)
    row = trainer.row_tokens * 0.95
    seconds = [train_seconds(QUESTION, trainer, rows * row, 5000.0) for rows in (4, 4.5)]
    # Half a row more makes a round more of micro-batches, which are smaller then: the bubble shrinks.
    assert seconds[1] / seconds[0] < 4.5 / 4


def test_faster_memory_makes_generation_faster():
    device = msgspec.structs.replace(QUESTION.profile.device, memory_gb_s=2 * 3350.0)
    profile = msgspec.structs.replace(QUESTION.profile, device=device)
    faster = msgspec.structs.replace(QUESTION, profile=profile)
    assert splits(faster, 64, max_lag=2.0)[0].step_s < FOUND[0].step_s


def test_fp8_shortens_the_trainers_step():
    tokens, context = QUESTION.mean.trained_tokens, QUESTION.mean.context
    plain, in_fp8 = (
        train_seconds(one, FOUND[0].trainer, tokens, context)
        for one in (
            with_settings("train.seq_len=20480"),
            with_settings("train.seq_len=20480", "train.fp8.kind=tensorwise"),
        )
    )
    assert in_fp8 < plain


def a_trainer(*, tensor: int) -> Trainer:
    parallel = Parallel(tensor=tensor, distributed_optimizer=True)
    return Trainer(parallel=parallel, recompute="full", row_tokens=20000)


def test_publish_takes_longer_to_more_servers_and_from_fewer_senders():
    fixed = QUESTION.profile.publish.fixed_s
    one, many = (publish_of(QUESTION, a_trainer(tensor=8), 8, count) for count in (1, 200))
    assert many.seconds > one.seconds
    assert many.swap_s == one.swap_s
    alone = publish_of(QUESTION, a_trainer(tensor=1), 8, 1)
    assert alone.seconds - fixed > 2 * (one.seconds - fixed)


def test_fp8_weights_travel_and_load_faster():
    plain, served = (
        publish_of(one, a_trainer(tensor=1), 1, 1)
        for one in (QUESTION, with_settings("publish.weights=fp8_block"))
    )
    assert served.swap_s < 0.6 * plain.swap_s
    fixed = QUESTION.profile.publish.fixed_s
    assert served.seconds - fixed < 0.6 * (plain.seconds - fixed)


def test_the_recipes_own_split_is_the_recipes():
    own = own_split(QUESTION, max_lag=2.0)
    assert (own.num_trainers, own.num_servers, own.server.tensor) == (8, 12, 2)
    assert own.groups_in_flight == 128
    assert own.trainer.row_tokens == 20000


def test_few_groups_in_flight_slow_generation():
    slow = own_split(with_settings("rollout.max_groups_in_flight=4"), max_lag=2.0)
    assert slow.generate_s > 1.5 * own_split(QUESTION, max_lag=2.0).generate_s


def test_servers_of_an_unknown_size_are_named():
    with pytest.raises(InputError, match=r"rollout\.servers\.tensor = 16"):
        own_split(with_settings("rollout.servers.tensor=16"), max_lag=2.0)
