"""Runs under faults lose nothing. The long test is asked for: `make chaos-test`."""

import json
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from apriel_mcore.bench.chaos import MAX_TRIES, Cycle
from apriel_mcore.errors import AprielError

KINDS = "abcdefg"


def test_every_kind_comes_before_any_comes_again() -> None:
    cycle, other = Cycle(KINDS, Random(1)), Cycle(KINDS, Random(2))
    rounds = [[cycle.next() for _ in KINDS] for _ in range(3)]
    assert all(sorted(kinds) == list(KINDS) for kinds in rounds)
    assert len({tuple(kinds) for kinds in rounds}) == 3
    assert [other.next() for _ in KINDS] != rounds[0]


def test_a_kind_that_found_nothing_to_harm_comes_again_in_its_cycle() -> None:
    cycle = Cycle(KINDS, Random(0))
    harmless = cycle.next()
    cycle.put_back(harmless)
    rest = [cycle.next() for _ in KINDS]
    assert sorted(rest) == list(KINDS) and rest[-1] == harmless


def test_a_kind_that_never_finds_anything_is_an_error() -> None:
    cycle = Cycle(KINDS, Random(0))
    with pytest.raises(AprielError, match="a found nothing to harm"):
        for _ in range(MAX_TRIES):
            cycle.put_back("a")


@pytest.mark.chaos
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("seed", [0])
def test_a_few_faults_of_many_kinds(seed: int, tmp_path: Path) -> None:
    numbers = tmp_path / "numbers.json"
    command = [sys.executable, "-m", "apriel_mcore.cli", "bench", "chaos", "--faults", "12"]
    done = subprocess.run(
        [*command, "--seed", str(seed), "--json", str(numbers)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-3000:]
    found = json.loads(numbers.read_text())
    assert found["faults"] == 12 and found["problems"] == 0
    assert sum(key.endswith(".count") and count > 0 for key, count in found.items()) == 12
