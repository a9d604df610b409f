"""The engines as a unit test wants them: instant, deterministic, breakable. No recipe can select one."""

import asyncio
import random
from collections.abc import Sequence

from apriel_mcore.errors import PoolError, VerifierError
from apriel_mcore.seams import Ack, Completion, Offer, Sampling
from apriel_mcore.types import Batch, Problem, StepStats, Verdict


class FakePool:
    """seams.Pool that answers after a seeded delay with seeded tokens."""

    def __init__(self, *, seed: int = 0, mean_delay_s: float = 0.0) -> None:
        self._random = random.Random(seed)
        self._mean_delay_s = mean_delay_s
        self.served = 0
        self.asked: list[Sampling] = []
        self.alive = True
        self._version = 0

    @property
    def version(self) -> int:
        """Version that requests are answered with."""
        return self._version

    async def generate(self, prompt_T: Sequence[int], sampling: Sampling) -> Completion:
        """One made-up answer; PoolError once `alive` is False."""
        self.asked.append(sampling)
        version = self._version
        if self._mean_delay_s:
            await asyncio.sleep(self._random.expovariate(1 / self._mean_delay_s))
        if not self.alive:
            raise PoolError("no rollout server is left")
        self.served += 1
        length = self._random.randint(1, sampling.max_tokens)
        tokens_T = tuple(self._random.randrange(100) for _ in range(length))
        return Completion(
            tokens_T=tokens_T,
            logprobs_T=tuple(-1.0 for _ in tokens_T),
            text=str(self._random.random()),
            finish="length" if length == sampling.max_tokens else "stop",
            version_first=version,
            version_last=self._version,
            seconds=0.0,
            server="fake",
        )

    async def score(self, tokens_T: Sequence[int]) -> list[list[float]]:
        """Log-prob -1 for every token."""
        return [[-1.0] * (len(tokens_T) - 1)]

    async def logprobs(self, tokens_T: Sequence[int]) -> list[float]:
        """Log-prob -1 for every token."""
        return [-1.0] * (len(tokens_T) - 1)

    async def update_weights(self, offer: Offer) -> list[Ack]:
        """Serve another version from now on."""
        self._version = offer.version
        return [Ack(server="fake", version=offer.version, read_R=(), seconds=0.0)]


class FakeJudge:
    """seams.Judge whose verdicts are a seeded coin, per domain; it can be told to crash."""

    def __init__(self, solve_rates: dict[str, float], *, seed: int = 0, crash_rate: float = 0.0) -> None:
        self._solve_rates = solve_rates
        self._random = random.Random(seed)
        self.crash_rate = crash_rate

    async def grade(self, problem: Problem, text: str) -> Verdict:
        """Correct with the domain's probability."""
        if self._random.random() < self.crash_rate:
            raise VerifierError("the fake judge was told to crash")
        success = self._random.random() < self._solve_rates[problem.domain]
        return Verdict(score=float(success), success=success, status="correct" if success else "wrong")

    def metrics(self) -> dict[str, float]:
        """An empty queue."""
        return {"queue": 0.0}


class FakeLearner:
    """seams.Learner that counts its steps and remembers what it trained."""

    def __init__(self, step: int = 0) -> None:
        self._step = step
        self.trained: list[Batch] = []

    @property
    def step(self) -> int:
        """Steps taken."""
        return self._step

    @property
    def num_data_ranks(self) -> int:
        """One."""
        return 1

    def train_step(self, batch: Batch) -> StepStats:
        """Remember the batch."""
        self.trained.append(batch)
        self._step += 1
        tokens = sum(sample.num_tokens for sample in batch.samples)
        return StepStats(
            loss=0.0,
            grad_norm=1.0,
            lr=1e-6,
            entropy=1.0,
            clip_fraction=0.0,
            logprob_abs_diff=0.0,
            kl_rollout_train=0.0,
            tokens_trained=tokens,
            packing_fill=1.0,
            seconds=0.0,
        )

    def logprobs(self, tokens_T: Sequence[int]) -> list[float]:
        """What the fake pool says."""
        return [-1.0] * (len(tokens_T) - 1)
