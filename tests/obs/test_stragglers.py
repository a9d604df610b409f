"""A slow server is named once, and once more when it has recovered."""

import random

import msgspec

from apriel_mcore.bench.made_run import make_group
from apriel_mcore.obs.stragglers import Stragglers
from apriel_mcore.types import Group


def groups(pace: dict[str, float], seed: int) -> list[Group]:
    rng = random.Random(seed)
    made = [make_group(1, i, 8, 0.5, rng) for i in range(12)]
    replace = msgspec.structs.replace
    return [
        replace(
            group,
            rollouts_G=tuple(
                replace(rollout, seconds=pace[rollout.server] * len(rollout.tokens_T))
                for rollout in group.rollouts_G
            ),
        )
        for group in made
    ]


def test_a_straggler_is_told_once_and_its_recovery_too() -> None:
    stragglers = Stragglers(2.0)
    even = {"server-0": 0.02, "server-1": 0.02, "server-2": 0.02}
    assert stragglers.observe(groups(even, 0)) == []
    words = [
        word for seed in range(1, 12) for word in stragglers.observe(groups(even | {"server-2": 0.1}, seed))
    ]
    assert len(words) == 1
    assert "server-2 takes 5.0 times as long a token" in words[0]
    words = [word for seed in range(20, 32) for word in stragglers.observe(groups(even, seed))]
    assert words == ["server-2 is as fast as the other servers again"]


def test_one_server_alone_is_no_straggler() -> None:
    stragglers = Stragglers(2.0)
    only = [
        msgspec.structs.replace(
            group, rollouts_G=tuple(r for r in group.rollouts_G if r.server == "server-0")
        )
        for group in groups(dict.fromkeys(("server-0", "server-1", "server-2"), 0.5), 0)
    ]
    assert stragglers.observe(only) == []
