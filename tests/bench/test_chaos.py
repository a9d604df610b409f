"""Runs under faults lose nothing. Not in the default suite: `pytest -m chaos tests/bench/test_chaos.py`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1500)]


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
