"""The logic judge: only exact success counts, and no allowed scorer executes, hangs or accepts junk."""

import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from apriel_mcore.data import wrong
from apriel_mcore.errors import InputError
from apriel_mcore.types import Problem, Verdict
from apriel_mcore.verify import logic
from apriel_mcore.verify.logic import DENIED, check_task, self_check

reasoning_gym = pytest.importorskip("reasoning_gym")
from reasoning_gym.factory import DATASETS  # noqa: E402

SLOW_TO_MAKE = {"arc_agi", "futoshiki", "rearc", "sokoban", "zebra_puzzles"}
PROBED = sorted(DATASETS.keys() - DENIED.keys())


def puzzle(task: str, question: str, answer: str, **metadata: Any) -> dict[str, Any]:
    return {"task": task, "entry": {"question": question, "answer": answer, "metadata": metadata}}


def generate(task: str, seed: int = 3) -> dict[str, Any]:
    """A reference as it arrives in the worker: after a trip through JSON."""
    item = reasoning_gym.create_dataset(task, size=1, seed=seed)[0]
    return msgspec.json.decode(msgspec.json.encode({"task": task, "entry": item}, enc_hook=str))


def verify(reference: dict[str, Any], text: str) -> Verdict:
    return logic.verify(reference, text, solved_at=logic.FULL_SCORE)


YES = puzzle("syllogism", "All A are B. Is every A a B?", "Yes")


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("Yes", "correct"),
        (" Yes\n", "correct"),
        ("No, wait </think> Yes", "correct"),
        ("<answer>No</answer> hm <answer>Yes</answer>", "correct"),
        ("<answer>Yes</answer> hm <answer>No</answer>", "wrong"),
        ("No", "wrong"),
        ("yes", "wrong"),
        ("The answer is Yes", "wrong"),
        ("Yes No", "wrong"),
        ("", "no_answer"),
        ("Yes" * 4000, "unparsable"),
    ],
)
def test_bare_answers(text: str, status: str) -> None:
    verdict = verify(YES, text)
    assert verdict.status == status
    assert verdict.score == (1.0 if status == "correct" else 0.0)


@pytest.mark.parametrize("task", sorted(DENIED))
def test_denied_tasks_are_refused_by_name(task: str) -> None:
    with pytest.raises(InputError, match=f"'{task}' is not allowed"):
        check_task(task)
    with pytest.raises(InputError, match=f"'{task}' is not allowed"):
        verify(puzzle(task, "q", "a"), "a")


def test_every_denied_task_exists() -> None:
    assert DENIED.keys() <= DATASETS.keys()


@pytest.mark.parametrize(
    "reference",
    [
        puzzle("no_such_task", "q", "a"),
        puzzle("ab", "q", ""),
        {"task": "ab"},
        puzzle("letter_counting", "q", " "),
    ],
)
def test_bad_references_are_refused(reference: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        self_check(reference)


@pytest.mark.parametrize("task", ["coin_flip", "complex_arithmetic"])
def test_why_wrong_accepts_are_denied(task: str) -> None:
    """When this fails a new release has repaired the scorer."""
    dataset = reasoning_gym.create_dataset(task, size=8, seed=11)
    junk = {"coin_flip": "0", "complex_arithmetic": "nan"}[task]
    assert any(dataset.score_answer(junk, item) == 1.0 for item in dataset)


def test_allowed_scorers_do_not_execute_hang_or_accept_junk(tmp_path: Path) -> None:
    """A package upgrade cannot bring in an executing scorer unseen."""
    mark = tmp_path / "mark"
    probes = [
        f"__import__('pathlib').Path({str(mark)!r}).touch()",
        f"[__import__('pathlib').Path({str(mark)!r}).touch()]",
        f"(lambda: open({str(mark)!r}, 'w'))()",
        f"open({str(mark)!r}, 'w')",
        "9**9**9**9",
        "nan",
        "[[null]]",
        "(" * 3000,
        "\x00",
        "-" * 5000,
    ]
    for task in PROBED:
        reference = generate(task)
        self_check(reference)
        for probe in probes:
            start = time.process_time()
            verdict = verify(reference, probe)
            assert not verdict.success, f"{task} accepts {probe[:40]!r}"
            assert time.process_time() - start < 0.5, f"{task} is slow on {probe[:40]!r}"
            assert not mark.exists(), f"{task} executed {probe[:40]!r}"


def test_no_changed_gold_is_accepted() -> None:
    """Of every task that makes items quickly: other signs, a digit more or less, junk before, talk around."""
    for task in sorted(set(PROBED) - SLOW_TO_MAKE):
        for seed in (3, 4):
            reference = generate(task, seed)
            gold = reference["entry"]["answer"]
            changed = Problem(
                id=task,
                domain="d",
                source="s",
                messages=(),
                verifier="logic",
                reference=reference | {"gold": gold},
                split_key="k",
            )
            for text in wrong.answers(changed, num=50, seed=seed):
                assert not verify(reference, text).success, f"{task}: {gold[:60]!r} and {text[:60]!r}"


def test_a_recipe_may_count_near_misses() -> None:
    near = "Yes!!"
    score = reasoning_gym.get_score_answer_fn("syllogism")(near, YES["entry"])
    assert 0 < score < 1
    assert not logic.verify(YES, near, solved_at=1.0).success
    assert logic.verify(YES, near, solved_at=score).success
