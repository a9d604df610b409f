"""How good is the model on problems it never trained on? Accuracy and tokens per domain, unshaped."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from statistics import fmean
from typing import Any, Protocol

from apriel_mcore.config.schema import RunConfig
from apriel_mcore.errors import VerifierError
from apriel_mcore.obs.runlog import RunLog
from apriel_mcore.rollout.ask import Asker
from apriel_mcore.seams import Sampling
from apriel_mcore.types import Problem, Rollout

Answer = tuple[Problem, Rollout]
_LOOK_S = 0.5
"""Between two looks for a stop request."""


class Evaluator(Protocol):
    """What the loop sees of evaluation."""

    def run_if_due(self, step: int) -> None:
        """Evaluate before the first step, after the last, and every `eval.every` steps."""
        ...

    @property
    def gave_up(self) -> bool:
        """Whether a stop request ended an evaluation, which the next attempt has to repeat."""
        ...


class HeldOutEvaluator:
    """Evaluates through the same pool and judges as training; on the rank that owns them."""

    def __init__(
        self,
        config: RunConfig,
        *,
        held_out: Mapping[str, Sequence[Problem]],
        constant: Mapping[str, float],
        asker: Asker,
        log: RunLog,
        run_async: Callable[[Coroutine[Any, Any, list[Answer] | None]], list[Answer] | None],
        stop_requested: Callable[[], bool],
        accuracy: dict[int, dict[str, float]],
    ) -> None:
        self._config = config
        self._problems = [  # ids are hashes: in their order the sources are mixed
            problem
            for domain in held_out.values()
            for problem in sorted(domain, key=lambda one: one.id)[: config.eval.problems_per_domain]
            for _ in range(config.eval.samples)
        ]
        self._constant = constant
        self._asker = asker
        self._log = log
        self._run_async = run_async
        self._stop_requested = stop_requested
        self.gave_up = False
        self.accuracy = accuracy
        """Of each domain that had a verdict, by step evaluated, in earlier attempts too."""

    def run_if_due(self, step: int) -> None:
        """See Evaluator; a resumed run does not repeat an evaluation it has on record.

        VerifierError when not one answer has a verdict.
        """
        every = self._config.eval.every
        due = step in (0, self._config.train.num_steps) or (every > 0 and step % every == 0)
        if not due or step in self.accuracy:
            return
        self._log.event("phase", message=f"evaluating on held-out problems, step {step}")
        answers = self._run_async(self._answers())
        if answers is None:
            self.gave_up = True
            self._log.event(
                "phase", message=f"stopping: the evaluation of step {step} is left to the next start"
            )
            return
        if not answers:
            raise VerifierError(
                f"evaluation of step {step}: not one of {len(self._problems)} answers has a verdict: every "
                "judge broke; start again when they run, or correct the recipe's verify section"
            )
        event = self._event(answers)
        self.accuracy[step] = by_domain(event)
        self._log.event("eval", step=step, **event)

    async def _answers(self) -> list[Answer] | None:
        """None when a stop was requested meanwhile: an evaluation may outlast the notice of a preemption."""
        asked = asyncio.gather(*(self._answer(problem) for problem in self._problems))
        while not (await asyncio.wait([asked], timeout=_LOOK_S))[0]:
            if self._stop_requested():
                asked.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await asked
                return None
        return [answer for answer in asked.result() if answer]

    async def _answer(self, problem: Problem) -> Answer | None:
        settings = self._config.eval
        sampling = Sampling(
            max_tokens=self._config.budget_of(problem.domain),
            temperature=settings.temperature,
            top_p=settings.top_p,
            stop=tuple(self._config.rollout.stop),
        )
        try:
            return problem, await self._asker.rollout(problem, sampling)
        except VerifierError:
            self._asker.lost["eval_judge"] += 1
            return None

    def _event(self, answers: list[Answer]) -> dict[str, Any]:
        event: dict[str, Any] = {}
        for domain in self._config.domains:
            rollouts = [rollout for problem, rollout in answers if problem.domain == domain]
            if not rollouts:
                continue
            event[f"accuracy.{domain}"] = fmean(rollout.verdict.success for rollout in rollouts)
            event[f"score.{domain}"] = fmean(rollout.verdict.score for rollout in rollouts)
            event[f"tokens_mean.{domain}"] = fmean(len(rollout.tokens_T) for rollout in rollouts)
            event[f"truncated.{domain}"] = fmean(rollout.truncated for rollout in rollouts)
            event[f"constant.{domain}"] = self._constant[domain]
            event[f"count.{domain}"] = len(rollouts)
        event["accuracy_mean"] = fmean(by_domain(event).values())
        event["samples"] = [_shown(answer) for answer in self._shown(answers)]
        return event

    def _shown(self, answers: list[Answer]) -> list[Answer]:
        """The first three answers of each domain, the same problems at every evaluation."""
        domains = [
            [answer for answer in answers if answer[0].domain == name] for name in self._config.domains
        ]
        return [answer for domain in domains for answer in domain[:3]]


def by_domain(event: Mapping[str, Any]) -> dict[str, float]:
    """Accuracies of an evaluation's event; a domain whose judges all broke is in none."""
    return {key.removeprefix("accuracy."): event[key] for key in event if key.startswith("accuracy.")}


class NoEvaluator:
    """On the ranks without a pool: the others' evaluation does not concern them."""

    gave_up = False

    def run_if_due(self, step: int) -> None:
        """Nothing to do here."""


def _shown(answer: Answer) -> dict[str, object]:
    problem, rollout = answer
    return {
        "domain": problem.domain,
        "problem": problem.id,
        "prompt": problem.messages[-1].content,
        "answer": rollout.text,
        "score": rollout.verdict.score,
        "tokens": len(rollout.tokens_T),
    }
