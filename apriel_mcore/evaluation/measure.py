"""One answer becomes a verdict at every budget.

    generate (or find) --cut at each budget, maybe forced to end--> texts --judge each once--> counts

A judge that breaks is counted at every budget that it was asked for; it never makes an answer wrong.
"""

import asyncio
from collections.abc import Callable

import msgspec

from apriel_mcore.errors import VerifierError
from apriel_mcore.evaluation.answers import Answers
from apriel_mcore.evaluation.force import Opening, opening_of
from apriel_mcore.evaluation.generations import Generation, GenerationFile
from apriel_mcore.evaluation.result import Counts, Point, point_of
from apriel_mcore.evaluation.tasks import Task
from apriel_mcore.seams import Judge
from apriel_mcore.types import Problem


class Reading(msgspec.Struct, frozen=True):
    """What is judged of one answer at one point."""

    text: str
    tokens: int
    is_cut: bool


class Measure:
    """Asks, cuts, judges and counts the answers of one task."""

    def __init__(
        self,
        task: Task,
        *,
        answers: Answers,
        judge: Judge,
        record: GenerationFile,
        end_of_thinking: str,
        done: Callable[[], None],
    ) -> None:
        self.task = task
        self._answers = answers
        self._judge = judge
        self._record = record
        self._end_of_thinking = end_of_thinking
        """Empty: no answer is forced to end."""
        self._done = done
        self.generated = 0
        kinds = (False, True) if end_of_thinking else (False,)
        self._points = [(budget, forced) for forced in kinds for budget in task.budgets]
        self._counts = {point: [Counts() for _ in task.problems] for point in self._points}

    async def run(self, places: asyncio.Semaphore) -> list[Point]:
        """All answers of the task, at most as many at once as there are places."""
        async with asyncio.TaskGroup() as group:
            for position, problem in enumerate(self.task.problems):
                for number in range(self.task.samples):
                    await places.acquire()
                    work = group.create_task(self._one(position, problem, number))
                    work.add_done_callback(lambda _: places.release())
        return [point_of(budget, forced, counts) for (budget, forced), counts in self._counts.items()]

    async def _one(self, position: int, problem: Problem, number: int) -> None:
        generation = await self._generation(problem, number)
        verdicts: dict[str, bool | None] = {}
        for point in self._points:
            reading = await self._read(problem, number, generation, *point)
            if reading.text not in verdicts:
                verdicts[reading.text] = await self._verdict(problem, reading.text)
            _count(self._counts[point][position], reading, verdicts[reading.text])
        self._done()

    async def _generation(self, problem: Problem, number: int) -> Generation:
        sampling = self.task.sampling(self.task.budgets[-1])
        key = self._answers.key(problem, sampling, number=number, begun="")
        found = self._record.find(key, max_tokens=sampling.max_tokens)
        if found is None:
            found = await self._answers.sample(problem, sampling, key=key)
            self._keep(found)
        return found

    async def _read(
        self, problem: Problem, number: int, generation: Generation, budget: int, forced: bool
    ) -> Reading:
        is_cut = generation.is_cut_at(budget)
        tokens = min(generation.num_tokens, budget)
        text = problem.whole(self._answers.beginning(generation, tokens))
        if not (is_cut and forced):
            return Reading(text, tokens, is_cut)
        opening = opening_of(problem, end_of_thinking=self._end_of_thinking, at_most=self.task.budgets[-1])
        end = await self._forced(problem, number, generation, tokens, opening)
        return Reading(text + opening.text + end.text, tokens + end.num_tokens, is_cut)

    async def _forced(
        self, problem: Problem, number: int, generation: Generation, cut: int, opening: Opening
    ) -> Generation:
        sampling = self.task.sampling(opening.max_tokens)
        begun = f"{generation.key} {generation.max_tokens} {cut} {opening.text}"
        key = self._answers.key(problem, sampling, number=number, begun=begun)
        found = self._record.find(key, max_tokens=sampling.max_tokens)
        if found is None:
            found = await self._answers.go_on(
                problem, sampling, begun=generation, cut=cut, words=opening.text, key=key
            )
            self._keep(found)
        return found

    async def _verdict(self, problem: Problem, text: str) -> bool | None:
        """Right or wrong; None when the judge broke."""
        try:
            return (await self._judge.grade(problem, text)).success
        except VerifierError:
            return None

    def _keep(self, generation: Generation) -> None:
        self._record.add(generation)
        self.generated += 1


def _count(counts: Counts, reading: Reading, verdict: bool | None) -> None:
    if verdict is None:
        counts.broke += 1
        return
    counts.judged += 1
    counts.correct += verdict
    counts.tokens += reading.tokens
    counts.cut += reading.is_cut
