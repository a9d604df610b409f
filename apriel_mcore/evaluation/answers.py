"""Who answers? Servers of our own, by token ids, or somebody's endpoint, by chat.

Shape suffixes: _T tokens.
"""

from collections.abc import Sequence
from typing import Protocol

from apriel_mcore.evaluation.generations import Generation, key_of, packed
from apriel_mcore.seams import Completion, Sampling
from apriel_mcore.types import Finish, Problem


class Answers(Protocol):
    """A model as an evaluation sees it."""

    def key(self, problem: Problem, sampling: Sampling, *, number: int, begun: str) -> str:
        """Name of the answer by content."""
        ...

    async def sample(self, problem: Problem, sampling: Sampling, *, key: str) -> Generation:
        """One answer; PoolError when the model cannot be reached."""
        ...

    async def go_on(
        self, problem: Problem, sampling: Sampling, *, begun: Generation, cut: int, words: str, key: str
    ) -> Generation:
        """What the model writes after the first `cut` tokens of an answer and these words of ours."""
        ...

    def beginning(self, generation: Generation, num_tokens: int) -> str:
        """Text of the first tokens of an answer."""
        ...


class TextOfTokens(Protocol):
    """What is needed of data/prompts.py's Renderer."""

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of a piece of an answer."""
        ...

    def decode(self, tokens_T: Sequence[int]) -> str:
        """Text of an answer, without special tokens."""
        ...


class Generates(Protocol):
    """What is needed of a pool."""

    async def generate(self, prompt_T: Sequence[int], sampling: Sampling) -> Completion:
        """One sampled answer; PoolError when no server is left."""
        ...


class PoolAnswers:
    """Answers over servers of our own: prompts go in and answers come back as token ids."""

    def __init__(self, pool: Generates, renderer: TextOfTokens, *, model: str) -> None:
        self._pool = pool
        self._renderer = renderer
        self._model = model

    def key(self, problem: Problem, sampling: Sampling, *, number: int, begun: str) -> str:
        """By the prompt's ids."""
        return key_of(self._model, problem.prompt_T, *law(sampling), number, begun)

    async def sample(self, problem: Problem, sampling: Sampling, *, key: str) -> Generation:
        """From the prompt."""
        return await self._complete(problem.prompt_T, sampling, key)

    async def go_on(
        self, problem: Problem, sampling: Sampling, *, begun: Generation, cut: int, words: str, key: str
    ) -> Generation:
        """From the prompt, the answer's own ids, and ours."""
        prompt_T = (*problem.prompt_T, *begun.pieces_T[:cut], *self._renderer.encode(words))
        return await self._complete(prompt_T, sampling, key)

    def beginning(self, generation: Generation, num_tokens: int) -> str:
        """Decoded from the ids; the whole answer is the server's own text."""
        if num_tokens >= generation.num_tokens:
            return generation.text
        return self._renderer.decode(generation.pieces_T[:num_tokens])

    async def _complete(self, prompt_T: Sequence[int], sampling: Sampling, key: str) -> Generation:
        done = await self._pool.generate(prompt_T, sampling)
        return Generation(
            key=key,
            max_tokens=sampling.max_tokens,
            num_tokens=len(done.tokens_T),
            text=done.text,
            finish=done.finish,
            seconds=done.seconds,
            pieces=packed(done.tokens_T),
        )


def law(sampling: Sampling) -> tuple[float, float, tuple[str, ...]]:
    """What of the sampling shapes an answer: all but the budget, which only ends it."""
    return sampling.temperature, sampling.top_p, sampling.stop


def finish_of(reason: str | None) -> Finish:
    """An endpoint's word for why it ended: whatever is not the budget is an end of its own."""
    return "length" if reason == "length" else "stop"
