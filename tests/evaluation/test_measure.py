"""From answers to counts: one generation, several budgets, forced ends, broken judges, and a resumed call."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from apriel_mcore.errors import PoolError, VerifierError
from apriel_mcore.evaluation.answers import PoolAnswers
from apriel_mcore.evaluation.force import opening_of
from apriel_mcore.evaluation.generations import GenerationFile
from apriel_mcore.evaluation.measure import Measure
from apriel_mcore.evaluation.result import Point
from apriel_mcore.evaluation.tasks import Task
from apriel_mcore.seams import Completion, Sampling
from apriel_mcore.types import Message, Problem, Verdict
from apriel_mcore.verify import math


class Letters:
    """A tokenizer whose tokens are characters."""

    def encode(self, text: str) -> tuple[int, ...]:
        return tuple(map(ord, text))

    def decode(self, tokens_T: Sequence[int]) -> str:
        return "".join(map(chr, tokens_T))


class Parrot:
    """A pool that says one line, and after our words what it was told to; it can end after some answers."""

    def __init__(self, line: str, *, forced: str = "", lives: int = 1000) -> None:
        self._line, self._forced, self._lives = line, forced, lives
        self.prompts: list[str] = []

    async def generate(self, prompt_T: Sequence[int], sampling: Sampling) -> Completion:
        if self._lives == 0:
            raise PoolError("no server is left")
        self._lives -= 1
        prompt = Letters().decode(prompt_T)
        self.prompts.append(prompt)
        said = self._forced if "</think>" in prompt else self._line
        text = said[: sampling.max_tokens]
        return Completion(
            tokens_T=Letters().encode(text),
            logprobs_T=tuple(0.0 for _ in text),
            text=text,
            finish="length" if len(said) > sampling.max_tokens else "stop",
            version_first=0,
            version_last=0,
            seconds=0.0,
            server="parrot",
        )


class MathJudge:
    """The real judge of mathematics, in this process; it breaks on the answers to some problems."""

    def __init__(self, *, breaks_on: Sequence[str] = ()) -> None:
        self._breaks_on = breaks_on
        self.texts: list[str] = []

    async def grade(self, problem: Problem, text: str) -> Verdict:
        self.texts.append(text)
        if problem.id in self._breaks_on:
            raise VerifierError("broke")
        return math.verify(problem.reference, text)

    def metrics(self) -> dict[str, float]:
        return {}


def problem(number: int = 0, prefill: str = "") -> Problem:
    return Problem(
        id=f"p{number}",
        domain="sums",
        source="sums",
        messages=(Message("user", "6 * 7?"),),
        verifier="math",
        reference={"answer": "42", "format": "boxed"},
        split_key=str(number),
        prompt_T=Letters().encode(f"{number}: 6 * 7?"),
        prefill=prefill,
    )


def measure(
    path: Path,
    pool: Parrot,
    judge: MathJudge,
    *,
    budgets: tuple[int, ...],
    mark: str = "",
    size: int = 1,
    prefill: str = "",
) -> tuple[list[Point], int]:
    task = Task(
        name="sums",
        kind="domain",
        about="",
        problems=tuple(problem(i, prefill) for i in range(size)),
        limit=0,
        samples=2,
        budgets=budgets,
        temperature=1.0,
        top_p=1.0,
        stop=(),
        left_out={},
        constant=None,
    )

    async def run(record: GenerationFile) -> tuple[list[Point], int]:
        one = Measure(
            task,
            answers=PoolAnswers(pool, Letters(), model="parrot"),
            judge=judge,
            record=record,
            end_of_thinking=mark,
            done=lambda: None,
        )
        return await one.run(asyncio.Semaphore(3)), one.generated

    with GenerationFile.opened(path) as record:
        return asyncio.run(run(record))


def test_one_generation_serves_every_budget(tmp_path: Path) -> None:
    line = r"so \boxed{42} it is, I think"
    pool, judge = Parrot(line), MathJudge()
    points, generated = measure(tmp_path / "a", pool, judge, budgets=(5, 20, 100))
    assert generated == len(pool.prompts) == 2
    assert [point.correct_P for point in points] == [[0], [2], [2]]
    assert [point.cut_P for point in points] == [[2], [2], [0]]
    assert [point.tokens_P for point in points] == [[5.0], [20.0], [float(len(line))]]
    assert len(judge.texts) == 6, "three texts for each of two answers"
    again, regenerated = measure(tmp_path / "a", Parrot("", lives=0), judge, budgets=(20,))
    assert regenerated == 0, "a smaller budget needs no server"
    assert again[0] == points[1]


def test_an_equal_text_is_judged_once(tmp_path: Path) -> None:
    judge = MathJudge()
    measure(tmp_path / "a", Parrot(r"\boxed{42}"), judge, budgets=(50, 100, 200))
    assert len(judge.texts) == 2


def test_a_forced_answer_ends_what_was_cut_and_only_that(tmp_path: Path) -> None:
    pool = Parrot("let me think for long", forced="42}")
    points, generated = measure(tmp_path / "a", pool, MathJudge(), budgets=(10, 100), mark="</think>")
    by_kind = {(point.budget, point.forced): point for point in points}
    assert by_kind[10, False].correct_P == [0]
    assert by_kind[10, True].correct_P == [2]
    assert by_kind[10, True].tokens_P == [13.0], "the forced tokens count too"
    assert by_kind[100, True].correct_P == by_kind[100, False].correct_P == [0]
    assert generated == 4
    words = opening_of(problem(), end_of_thinking="</think>", at_most=100).text
    assert sum(prompt.endswith("let me thi" + words) for prompt in pool.prompts) == 2


def test_a_broken_judge_is_counted_and_never_wrong(tmp_path: Path) -> None:
    judge = MathJudge(breaks_on=["p1"])
    points, _ = measure(tmp_path / "a", Parrot(r"so \boxed{42}"), judge, budgets=(3, 100), size=3)
    assert [point.judge_broke for point in points] == [2, 2]
    assert [point.judged_P for point in points] == [[2, 0, 2]] * 2
    assert points[1].accuracy.value == 1.0, "over the problems that were judged"
    assert points[1].tokens.value == 13.0


def test_all_judges_broken_is_no_result(tmp_path: Path) -> None:
    with pytest.raises(VerifierError, match="no answer has a verdict"):
        measure(tmp_path / "a", Parrot(r"\boxed{42}"), MathJudge(breaks_on=["p0"]), budgets=(100,))


def test_a_call_that_was_ended_goes_on(tmp_path: Path) -> None:
    path, line = tmp_path / "a", r"\boxed{42}"
    with pytest.raises(ExceptionGroup):
        measure(path, Parrot(line, lives=5), MathJudge(), budgets=(100,), size=6)
    rest = Parrot(line)
    points, generated = measure(path, rest, MathJudge(), budgets=(100,), size=6)
    assert generated == len(rest.prompts) == 12 - 5
    assert points[0].judged_P == [2] * 6
    assert points[0].accuracy.value == 1.0


@pytest.mark.parametrize("prefill", ["", "<think>\n", "Here are my reasoning steps:\n"])
def test_a_thought_that_the_prompt_began_is_no_answer_until_it_ends(tmp_path: Path, prefill: str) -> None:
    pool, judge = Parrot(r"\boxed{42}? </think>\boxed{42}"), MathJudge()
    points, _ = measure(tmp_path / "a", pool, judge, budgets=(11, 100), prefill=prefill)
    assert [point.correct_P for point in points] == [[0 if prefill else 2], [2]]
