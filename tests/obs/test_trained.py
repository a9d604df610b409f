"""Each group is found by its place alone, with the rewards and advantages that it was trained with."""

import random
from pathlib import Path

import msgspec
import zstandard

from apriel_mcore.bench.made_run import make_group
from apriel_mcore.obs.trained import TrainedStep, index_line, read_groups, write_groups
from apriel_mcore.types import Batch, Group, Sample, ShapedReward


def sample(group: Group, i: int, advantage: float) -> Sample:
    rollout = group.rollouts_G[i]
    return Sample(
        domain="math",
        prompt_T=(1,),
        response_T=rollout.tokens_T,
        logprobs_T=rollout.logprobs_T,
        advantage=advantage,
        version=0,
    )


def test_a_group_is_read_without_the_others(tmp_path: Path) -> None:
    groups = [make_group(1, i, 4, 0.5, random.Random(i)) for i in range(5)]
    path = tmp_path / "step.jsonl.zst"
    places = write_groups(path, groups)
    assert read_groups(path) == groups
    offset, size = places[3]
    alone = zstandard.decompress(path.read_bytes()[offset : offset + size])
    assert msgspec.json.decode(alone, type=Group) == groups[3]


def test_a_masked_rollout_has_no_advantage() -> None:
    groups = [make_group(1, i, 3, 0.5, random.Random(i)) for i in range(2)]
    trained = [(0, 0), (0, 2), (1, 0), (1, 1)]
    samples = tuple(sample(groups[g], i, g + i / 10) for g, i in trained)
    batch = Batch(samples=samples, rows=(), num_rollouts=6, num_response_tokens=1, pad_multiple=1)
    shaped = [[ShapedReward(task=1.0, length=-0.5, factor=0.5)] * 3] * 2
    line = index_line(1, groups, shaped, batch, [(0, 1), (1, 1)])
    first, second = msgspec.json.decode(line, type=TrainedStep).groups
    assert first.advantage_G == (0.0, None, 0.2)
    assert second.advantage_G == (1.0, 1.1, None)
    assert (first.task_G[0], first.total_G[0]) == (1.0, 0.75)
