"""Golds are asked for once: collected rows that fail are set aside, our own stop the run."""

import asyncio
import json
from pathlib import Path

import pytest

from apriel_mcore.config.schema import RunConfig, Verify
from apriel_mcore.data import gold_check, problems
from apriel_mcore.errors import InputError
from apriel_mcore.verify.grade import VerifierPool
from tests.data.test_problems import Characters, collected, config, everything, write


def refused(recipe: RunConfig) -> dict[str, str]:
    async def ask() -> dict[str, str]:
        async with VerifierPool(Verify(workers=1)) as judge:
            return await gold_check.refused(recipe, problems.load(recipe, Characters()), judge)

    return asyncio.run(ask())


def test_a_collected_gold_that_no_judge_can_read_is_set_aside(tmp_path: Path) -> None:
    rows = [{"problem": f"{n} + 0", "answer": n} for n in range(6)] + [{"problem": "7", "answer": r"\int"}]
    (tmp_path / "f.jsonl").write_text("\n".join(map(json.dumps, rows)))
    recipe = config(tmp_path, sources={"s": collected(tmp_path / "f.jsonl")})
    dataset = problems.load(recipe, Characters())
    found = refused(recipe)
    (bad,) = [p for p in everything(dataset) if p.messages[-1].content == "7"]
    assert found.keys() == {bad.id} and "cannot be parsed" in found[bad.id]
    assert problems.set_aside(dataset, found).rejected == {"math": {"gold_refused": 1}}


def test_a_gold_of_our_own_file_stops_the_run(tmp_path: Path) -> None:
    reference = {"answer": r"\int", "format": "boxed"}
    file = write(tmp_path / "f.jsonl", "1 + 1", "2 + 1", "3 + 1", reference=reference)
    with pytest.raises(InputError, match="cannot be parsed"):
        refused(config(file))
