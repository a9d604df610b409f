"""What does a run with this split look like? Simulated several times; a real run is one draw from them."""

import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Literal

import msgspec

from apriel_mcore.planning.flops import Decoder
from apriel_mcore.planning.layouts import train_seconds
from apriel_mcore.planning.pool import Fleet
from apriel_mcore.planning.question import Question
from apriel_mcore.planning.simulation import Limits, Simulation, Trace, scheduler_of
from apriel_mcore.planning.splits import Split
from apriel_mcore.planning.workload import Answers

_FEWEST_STEPS = 24
"""That are measured."""
_UNBOUNDED_STEPS = 40
"""As many warm up without a bound on the lag, and as many are measured."""
_UNLIMITED = 10**9
_MUCH_WAIT = 0.1


class Drawn(msgspec.Struct, frozen=True, kw_only=True):
    """One simulated run, after the steps in which its lag grows."""

    step_s: float
    wait_share: float
    lag_mean: float
    lag_max: int
    rollouts_per_s: float
    trained_tokens_per_s: float


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """Means over simulated runs; spreads are standard deviations of one run."""

    split: Split
    max_lag: float
    """Infinity: no bound."""
    num_runs: int
    step_s: float
    step_spread_s: float
    wait_share: float
    """Of the trainer."""
    wait_spread: float
    lag_mean: float
    lag_max: int
    rollouts_per_s: float
    trained_tokens_per_s: float
    mfu: float
    """Of the trainer's GPUs, over the whole step."""
    usd_per_step: float

    @property
    def bottleneck(self) -> Literal["trainer", "servers", "both"]:
        """Whom the other side waits for: by a trainer that waits for less or more than a tenth of its time,
        beyond twice the standard error."""
        unsure = 2 * self.wait_spread / math.sqrt(self.num_runs)
        if self.wait_share - unsure > _MUCH_WAIT:
            return "servers"
        return "trainer" if self.wait_share + unsure < _MUCH_WAIT else "both"


def simulate(question: Question, split: Split, *, max_lag: float, seeds: Sequence[int]) -> Outcome:
    """Under the product's scheduler, once for each seed."""
    draws = [draw(question, split, max_lag=max_lag, seed=seed) for seed in seeds]
    step_s = fmean(one.step_s for one in draws)
    tokens = fmean(one.trained_tokens_per_s for one in draws)
    device = question.profile.device
    flops = Decoder.of(question.shape).training_flops(question.mean.context)
    return Outcome(
        split=split,
        max_lag=max_lag,
        num_runs=len(draws),
        step_s=step_s,
        step_spread_s=_spread([one.step_s for one in draws]),
        wait_share=fmean(one.wait_share for one in draws),
        wait_spread=_spread([one.wait_share for one in draws]),
        lag_mean=fmean(one.lag_mean for one in draws),
        lag_max=max(one.lag_max for one in draws),
        rollouts_per_s=fmean(one.rollouts_per_s for one in draws),
        trained_tokens_per_s=tokens,
        mfu=tokens * flops / (split.num_trainers * device.bf16_tflops * 1e12),
        usd_per_step=split.num_gpus * device.usd_per_hour / 3600 * step_s,
    )


def _spread(values: Sequence[float]) -> float:
    return stdev(values) if len(values) > 1 else 0.0


def draw(question: Question, split: Split, *, max_lag: float, seed: int) -> Drawn:
    """One simulated run."""
    config = question.config
    fleet = Fleet(
        split.server.model,
        count=split.num_servers,
        places=split.server.places,
        prompt=question.prompt,
        swap_s=split.publish.swap_s,
    )
    prompt = question.prompt
    answers = Answers(
        question.lengths,
        group_size=config.rollout.group_size,
        budget=question.budget,
        train_seconds=lambda lengths: _step_seconds(question, split, [tokens + prompt for tokens in lengths]),
        seed=seed,
    )
    warm_up, measured = _steps(max_lag)
    limits = Limits(
        num_steps=warm_up + measured + 1, max_queued=_UNLIMITED, max_in_flight=split.groups_in_flight
    )
    bound = "unbounded" if math.isinf(max_lag) else max_lag
    rollout = msgspec.structs.replace(config.rollout, max_lag=bound)
    scheduler = scheduler_of(msgspec.structs.replace(config, rollout=rollout), seed=seed)
    return _drawn(question, Simulation(scheduler, fleet, answers, limits).run(), warm_up)


def _steps(max_lag: float) -> tuple[int, int]:
    """That warm up, and that are measured. All groups that the lag allows begin together and go on in waves,
    1 + max_lag steps from crest to crest: whole ones are measured."""
    if math.isinf(max_lag):
        return _UNBOUNDED_STEPS, _UNBOUNDED_STEPS
    wave = 1 + max_lag
    return 4 + math.ceil(1.5 * wave), math.ceil(wave * math.ceil(_FEWEST_STEPS / wave))


def _step_seconds(question: Question, split: Split, sizes: list[float]) -> float:
    tokens = sum(sizes)
    context = sum(size * size for size in sizes) / tokens
    return split.publish.seconds + train_seconds(question, split.trainer, tokens, context)


def _drawn(question: Question, trace: Trace, warm_up: int) -> Drawn:
    """From the begin of the first step after the warm-up to that of the last one."""
    first, *steps = trace.steps[warm_up:]
    last = steps[-1]
    seconds = last.begin - first.begin
    lags = [lag for step in steps for lag in step.lags]
    trained = sum(step.work for step in steps) + len(steps) * question.num_rollouts * question.prompt
    return Drawn(
        step_s=seconds / len(steps),
        wait_share=sum(step.wait for step in steps) / seconds,
        lag_mean=fmean(lags),
        lag_max=max(lags),
        rollouts_per_s=(last.num_rollouts - first.num_rollouts) / seconds,
        trained_tokens_per_s=trained / seconds,
    )
