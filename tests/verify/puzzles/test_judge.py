"""Every puzzle: what solves it, what does not, and that no answer is executed or takes long."""

import time
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apriel_mcore.errors import InputError
from apriel_mcore.verify.puzzles.judge import gold_text, self_check, verify, warm_up
from apriel_mcore.verify.puzzles.table import KINDS
from tests.verify.puzzles.cases import CASES, SUDOKU


def reference(task: str, facts: dict[str, Any]) -> dict[str, Any]:
    return {"task": task, "facts": facts}


def test_every_kind_has_a_case_with_answers_that_solve_it() -> None:
    assert {task for task, _, right, _ in CASES if right} == KINDS.keys()
    assert len(KINDS) == 30


@pytest.mark.parametrize(("task", "facts", "right", "wrong"), CASES)
def test_answers(task: str, facts: dict[str, Any], right: list[str], wrong: list[str]) -> None:
    self_check(reference(task, facts))
    for text in right:
        assert verify(reference(task, facts), f"Let me think.</think>{text}").success, text
    for text in wrong:
        verdict = verify(reference(task, facts), text)
        assert not verdict.success and verdict.score == 0.0, text


@pytest.mark.parametrize(("task", "facts", "right", "wrong"), CASES)
def test_the_rows_own_answer_is_written_as_a_model_would(
    task: str, facts: dict[str, Any], right: list[str], wrong: list[str]
) -> None:
    gold = gold_text(task, facts)
    assert bool(gold) == bool(facts.get(KINDS[task].gold))
    if gold:
        assert verify(reference(task, facts), gold).success


def test_no_answer_is_executed_or_takes_long(tmp_path: Path) -> None:
    warm_up()
    mark = tmp_path / "mark"
    touch = f"__import__('pathlib').Path({str(mark)!r}).touch()"
    probes = [touch, f"[[{touch}]]", f"```python\n(({touch},),)\n```", rf"\boxed{{{touch}}}", f"**{touch}**"]
    probes += ["9**9**9**9", "[[9**9**9]]", "[[" * 4000, "[[1," * 4000 + "]]" * 4000, "(" * 9000, "\x00" * 99]
    probes += [
        "1" * 15000,
        "[[" + "1 " * 9000 + "]]",
        "**yes** " * 2000,
        "-" * 15000,
        "1+" * 7000,
        "1-1" * 6000,
    ]
    for task, facts, _, _ in CASES:
        for probe in probes:
            start = time.process_time()
            assert not verify(reference(task, facts), probe).success, (task, probe[:40])
            assert time.process_time() - start < 0.5, (task, probe[:40])
    assert not mark.exists()


@given(st.sampled_from(CASES), st.text(alphabet="0123456789[](){},\"'XATC+-*/%= \n\\boxed`", max_size=60))
def test_no_text_breaks_a_judge(case: tuple[str, dict[str, Any], list[str], list[str]], text: str) -> None:
    task, facts, right, _ = case
    assert verify(reference(task, facts), text).success <= bool(right)


def test_an_answer_has_a_limit_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(facts: Any, answer: str) -> bool:
        return all(answer for _ in count())

    monkeypatch.setitem(KINDS, "sudoku", KINDS["sudoku"]._replace(check=busy))
    verdict = verify(reference("sudoku", {"original_sudoku": SUDOKU}), str(SUDOKU))
    assert verdict.detail == "took more than 1 s of CPU"


@given(st.integers(0, 80), st.integers(1, 9))
def test_no_sudoku_with_a_changed_cell_is_accepted(place: int, number: int) -> None:
    changed = [row.copy() for row in SUDOKU]
    changed[place // 9][place % 9] = number
    verdict = verify(reference("sudoku", {"original_sudoku": [[0] * 9] * 9}), str(changed))
    assert verdict.success == (changed == SUDOKU)


def test_answers_that_are_none() -> None:
    sudoku = reference("sudoku", {"original_sudoku": SUDOKU})
    assert verify(sudoku, "<think>hm").status == "no_answer"
    assert verify(sudoku, "I do not know").status == "unparsable"
    assert verify(sudoku, "[" * 30_000).status == "unparsable"


@pytest.mark.parametrize(
    ("task", "facts", "message"),
    [
        ("bbh_snarks", {"answer": "A"}, "no check for puzzle 'bbh_snarks'"),
        ("sudoku", {}, "original_sudoku"),
        ("mathador", {"numbers": ["a"], "operators": [], "result": 1}, "numbers"),
        (
            "futoshiki",
            {"question": "?", "grid_size": 1, "prefilled_coords": [[0]], "constraints": []},
            "length",
        ),
    ],
)
def test_bad_puzzles_are_refused_by_name(task: str, facts: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        self_check(reference(task, facts))
