"""Answers on record: found by content, whole after a kill, and never a biased part of a budget."""

from pathlib import Path

import pytest

from apriel_mcore.errors import InputError
from apriel_mcore.evaluation.generations import Generation, GenerationFile, key_of, packed


def answer(key: str, *, max_tokens: int = 8, num_tokens: int = 3) -> Generation:
    return Generation(
        key=key,
        max_tokens=max_tokens,
        num_tokens=num_tokens,
        text="one two three",
        finish="stop" if num_tokens < max_tokens else "length",
        seconds=0.5,
        pieces=packed([100_000 + i for i in range(num_tokens)]),
    )


def test_what_was_added_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "answers.jsonl"
    with GenerationFile.opened(path) as record:
        record.add(answer("a"))
        record.add(answer("b", num_tokens=8))
        assert record.find("a", max_tokens=8) == answer("a")
    with GenerationFile.opened(path) as record:
        assert len(record) == 2
        assert record.find("b", max_tokens=8) == answer("b", num_tokens=8)
        assert record.find("c", max_tokens=8) is None


def test_a_smaller_budget_is_served_and_a_larger_one_is_not(tmp_path: Path) -> None:
    with GenerationFile.opened(tmp_path / "answers.jsonl") as record:
        record.add(answer("a", max_tokens=8))
        assert record.find("a", max_tokens=4) is not None
        assert record.find("a", max_tokens=9) is None, "it ended by itself, and still does not serve"
        record.add(answer("a", max_tokens=16))
        assert record.find("a", max_tokens=9) is not None


@pytest.mark.parametrize("lost", [1, 20, 60])
def test_a_line_that_a_kill_cut_is_taken_back(tmp_path: Path, lost: int) -> None:
    path = tmp_path / "answers.jsonl"
    with GenerationFile.opened(path) as record:
        record.add(answer("a"))
        record.add(answer("b"))
    path.write_bytes(path.read_bytes()[:-lost])
    with GenerationFile.opened(path) as record:
        assert len(record) == 1
        record.add(answer("c"))
    with GenerationFile.opened(path) as record:
        assert [record.find(key, max_tokens=8) is not None for key in "abc"] == [True, False, True]


def test_a_second_process_is_told_to_wait(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    first = GenerationFile.opened(path)
    with first, pytest.raises(InputError, match="--out"), GenerationFile.opened(path):
        pass


def test_cut_at_the_budget() -> None:
    ended, stopped = answer("a", max_tokens=8, num_tokens=3), answer("b", max_tokens=3, num_tokens=3)
    assert [ended.is_cut_at(budget) for budget in (2, 3, 4)] == [True, False, False]
    assert [stopped.is_cut_at(budget) for budget in (2, 3)] == [True, True]


def test_keys_tell_all_parts_apart() -> None:
    keys = {key_of("m", (1, 2), 0.6, 0.95, (), 0, ""), key_of("m", (1, 2), 0.6, 0.95, (), 1, "")}
    keys |= {key_of("n", (1, 2), 0.6, 0.95, (), 0, ""), key_of("m", (12,), 0.6, 0.95, (), 0, "")}
    assert len(keys) == 4
    assert key_of("m", (1,)) == key_of("m", (1,))
