"""The ratios of two runs of one task."""

import math
from pathlib import Path

import pytest

from apriel_mcore.bench.loop import comparison
from apriel_mcore.bench.peers.curve import JudgedGroup, Step, Trail
from apriel_mcore.config.load import load

CONFIG = load(Path("recipes/quickstart.toml"))


def trail(seconds: float, reward: float, with_signal: int) -> Trail:
    groups = [JudgedGroup(seconds, name, reward, 8) for name in CONFIG.domains for _ in range(12)]
    return Trail(1.0, groups, [Step(seconds, 80, with_signal)])


def test_each_rate_is_over_its_own():
    found = comparison(CONFIG, trail(10.0, 0.5, 80), trail(40.0, 0.5, 20))
    assert found["ratio_to_trl"] == found["judged_ratio_to_trl"] == pytest.approx(4.0)
    assert found["signal_ratio_to_trl"] == pytest.approx(16.0)
    assert (found["time_to_trl_reward_s"], found["time_to_trl_reward_ratio"]) == (10.0, 0.25)


def test_a_peer_that_never_had_a_signal_does_not_end_the_bench():
    assert comparison(CONFIG, trail(10.0, 0.5, 80), trail(40.0, 0.5, 0))["signal_ratio_to_trl"] == math.inf
