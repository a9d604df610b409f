"""The rows that the documentation shows are rows that the judges take."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from apriel_mcore.verify import choice, code, math, text
from apriel_mcore.verify.instruction import judge as instruction
from apriel_mcore.verify.sandbox import SandboxLimits

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "bring-data.md"
ROWS = [json.loads(line) for line in PAGE.read_text().splitlines() if line.startswith('{"prompt"')]
LIMITS = SandboxLimits(cpu_s=2.0, wall_s=5.0, give_up_s=6.0, memory_mib=256)
CHECKS: dict[str, Callable[[dict[str, Any]], None]] = {
    "math": math.self_check,
    "code": lambda reference: code.self_check(reference, LIMITS),
    "instruction": instruction.self_check,
    "choice": choice.self_check,
    "text": text.self_check,
}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["verifier"])
def test_a_documented_reference_is_accepted(row: dict[str, Any]) -> None:
    CHECKS[row["verifier"]](row["reference"])


def test_each_of_them_is_documented() -> None:
    assert {row["verifier"] for row in ROWS} == CHECKS.keys()
