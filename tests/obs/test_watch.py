"""A stall is told once it is one, with the name of the process that is waited for."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from apriel_mcore.config.schema import Watch
from apriel_mcore.obs import watch
from apriel_mcore.obs.spans import STORY, Span, span, timed
from apriel_mcore.obs.watch import Phases, Pulse, Watchman, blame, read_pulses

NOW = 1000.0


def pulse(rank: int, *, doing: str = "train", since: float = 900.0, heard: float = NOW) -> Pulse:
    return Pulse(rank=rank, host="node7", pid=100 + rank, time=heard, doing=doing, since=since)


def blamed(story: str, doing: list[Span], pulses: list[Pulse]) -> str:
    verb = Span(story, STORY, 900.0)
    return blame(verb, [verb, *doing], pulses, now=NOW, beat_s=5.0)


def test_a_rank_without_a_sign_of_life_is_named_first() -> None:
    word = blamed("train", [], [pulse(0), pulse(1, heard=NOW - 60), pulse(2, doing="publish")])
    assert word == "trainer rank 1 (pid 101 on node7) has given no sign of life for 60 s"


def test_a_rank_in_another_phase_is_named() -> None:
    word = blamed("train", [], [pulse(0), pulse(1, doing="checkpoint", since=950.0)])
    assert word == "trainer rank 1 (pid 101 on node7) is in checkpoint for 50 s"


def test_the_server_with_the_oldest_request_comes_first() -> None:
    doing = [Span("answer", f"server-{i % 2}", 990.0 - 40 * (i % 2)) for i in range(5)]
    word = blamed("wait", [*doing, Span("judge", "judges of code", 970.0)], [pulse(0, doing="wait")])
    assert word == (
        "server-1: 2 x answer, the oldest for 50 s; judges of code: 1 x judge, the oldest for 30 s; "
        "server-0: 3 x answer, the oldest for 10 s"
    )


def test_nothing_in_flight_is_said_too() -> None:
    assert "nothing is asked" in blamed("wait", [], [pulse(0, doing="wait")])


def test_too_long_is_a_multiple_of_the_median() -> None:
    phases = Phases(Watch(stall_factor=5.0))
    assert phases.limit("train") == watch.FIRST_S
    for seconds in (10.0, 20.0, 30.0, 1000.0, 20.0):
        phases.note("train", seconds)
    assert phases.limit("train") == 100.0
    for _ in range(40):
        phases.note("train", 0.1)
    assert phases.limit("train") == watch.FLOOR_S
    assert Phases(Watch(stall_after_s=7.0)).limit("train") == 7.0
    assert Phases(Watch(stall_after_s="off")).limit("train") == float("inf")


def test_a_stall_is_told_while_it_lasts_and_again_when_it_doubled(tmp_path: Path) -> None:
    told: list[str] = []
    settings = Watch(stall_after_s=0.2, beat_s=0.05)

    @span("wait")
    def wait() -> None:
        with timed("answer", lane="server-3"):
            time.sleep(1.2)

    with Watchman(settings, tmp_path / "pulse", rank=0, alarm=told.append):
        time.sleep(0.3)
        assert told == [], "nothing is done, nothing stalls"
        wait()
        time.sleep(0.2)
    assert 2 <= len(told) <= 4
    assert all(word.startswith("stalled: wait for") and "server-3: 1 x answer" in word for word in told)
    assert read_pulses(tmp_path / "pulse") == [], "a rank that ends well leaves no pulse"


RANK = """
import sys, time
from pathlib import Path
from apriel_mcore.config.schema import Watch
from apriel_mcore.obs.watch import Watchman
with Watchman(Watch(beat_s=0.05), Path(sys.argv[1]), rank=1, alarm=None):
    time.sleep(60)
"""


def test_a_stopped_process_is_named(tmp_path: Path) -> None:
    told: list[str] = []

    @span("train")
    def train() -> None:
        time.sleep(1.5)

    other = subprocess.Popen([sys.executable, "-c", RANK, str(tmp_path)], env=os.environ)
    try:
        while not read_pulses(tmp_path):
            time.sleep(0.05)
        os.kill(other.pid, signal.SIGSTOP)
        with Watchman(Watch(stall_after_s=1.0, beat_s=0.1), tmp_path, rank=0, alarm=told.append):
            train()
    finally:
        other.kill()
        other.wait()
    assert f"trainer rank 1 (pid {other.pid} on" in told[0]
    assert "no sign of life" in told[0]


@pytest.mark.parametrize("name", ["rank0.json", "rank1.json"])
def test_a_pulse_is_never_seen_half_written(tmp_path: Path, name: str) -> None:
    (tmp_path / name).with_suffix(".partial").write_text('{"rank": 0, "ho')
    assert read_pulses(tmp_path) == []
