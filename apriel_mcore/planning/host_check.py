"""Does the simulation say what runs on one host did? Predicted from their recipes alone, against measured.

fitted runs --> Host, answers and verdicts of this model -.
recipe of a run --> the product's scheduler, SharedFleet -'-> Pace, against the run's own
"""

from collections.abc import Sequence
from statistics import fmean

import msgspec
import numpy as np

from apriel_mcore.errors import InputError
from apriel_mcore.loss.advantage import keeps
from apriel_mcore.loss.reward import shape_group
from apriel_mcore.planning.past_run import PastRun, num_prompts
from apriel_mcore.planning.shared_host import Host, SharedFleet
from apriel_mcore.planning.simulation import Limits, Simulation, Trace, scheduler_of
from apriel_mcore.types import Group

_UNLIMITED = 10**9
_SEEDS = 16
"""Simulated runs of one recipe: a real one is one draw from them."""
_TOLERANCE = 0.15
_HEAD = ("use", "run", "trainer threads", "servers x places", "max_lag", "step s", "rollouts/s", "lag mean")


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is judged by, after its first third, in which the lag grows."""

    step_s: float
    rollouts_per_s: float
    lag_mean: float


def _lengths(group: Group) -> list[float]:
    return [float(len(rollout.tokens_T)) for rollout in group.rollouts_G]


class Measured:
    """simulation.Workload: answers and verdicts of groups that a run trained without a filter."""

    def __init__(self, groups: Sequence[Group], run: PastRun, host: Host, *, seed: int) -> None:
        """For the recipe of `run`. InputError for a domain without a group."""
        self._random = np.random.default_rng(seed)
        self._config = run.config
        self._threads = run.threads
        self._host = host
        self._by_domain = {
            name: [one for one in groups if one.problem.domain == name] for name in run.config.domains
        }
        for name, found in self._by_domain.items():
            if not found:
                raise InputError(
                    f"calibrate host: no fitted run trained a group of domain {name}; give a longer one"
                )
        self._prompt = fmean(len(group.problem.prompt_T) for group in groups)

    def rollouts(self, domain: str) -> list[float]:
        """Tokens of the answers of one group."""
        found = self._by_domain[domain]
        return _lengths(found[self._random.integers(len(found))])

    def keeps(self, domain: str) -> bool:
        """As the recipe's filter would one of the groups."""
        found = self._by_domain[domain]
        group, advantage = found[self._random.integers(len(found))], self._config.advantage
        return keeps(shape_group(group, self._config), advantage.filter_on, min_std=advantage.min_std)

    def train_seconds(self, works: list[list[float]]) -> float:
        """Of an optimizer step alone."""
        tokens = sum(sum(group) + num_prompts(group, self._config) * self._prompt for group in works)
        return self._host.step_seconds(tokens, threads=self._threads)


def predict(run: PastRun, host: Host, groups: Sequence[Group]) -> Pace:
    """Of the recipe of `run` and as many steps, with the answers of `groups`; nothing else of it is looked
    at. Mean over simulated runs."""
    paces = [_pace(_simulate(run, host, groups, seed)) for seed in range(_SEEDS)]
    return Pace(
        step_s=fmean(pace.step_s for pace in paces),
        rollouts_per_s=fmean(pace.rollouts_per_s for pace in paces),
        lag_mean=fmean(pace.lag_mean for pace in paces),
    )


def _simulate(run: PastRun, host: Host, groups: Sequence[Group], seed: int) -> Trace:
    servers, rollout = run.servers, run.config.rollout
    fleet = SharedFleet(host, threads=run.threads, count=servers.count, places=servers.max_num_seqs)
    limits = Limits(
        num_steps=len(run.steps), max_queued=_UNLIMITED, max_in_flight=rollout.max_groups_in_flight
    )
    answers = Measured(groups, run, host, seed=seed)
    return Simulation(scheduler_of(run.config, seed=seed), fleet, answers, limits).run()


def _pace(trace: Trace) -> Pace:
    steady = trace.steps[len(trace.steps) // 3 :]
    first, last = steady[0], steady[-1]
    seconds = last.begin - first.begin
    return Pace(
        step_s=seconds / (len(steady) - 1),
        rollouts_per_s=(last.num_rollouts - first.num_rollouts) / seconds,
        lag_mean=fmean(lag for step in steady for lag in step.lags),
    )


def measure(run: PastRun) -> Pace:
    """What the run's own events say."""
    steady = run.steps[len(run.steps) // 3 :]
    first, last = steady[0], steady[-1]
    seconds = last["time"] - first["time"]
    return Pace(
        step_s=seconds / (len(steady) - 1),
        rollouts_per_s=(last["feed.pool.requests"] - first["feed.pool.requests"]) / seconds,
        lag_mean=fmean(event["lag_mean"] for event in steady),
    )


def lines(fitted: Sequence[PastRun], judged: Sequence[PastRun], host: Host) -> list[str]:
    """A Markdown table: measured, predicted and the error of each run; and the constants behind it."""
    groups = [group for run in fitted if run.takes_turns for step in run.groups for group in step]
    fits = [_compare(run, host, groups) for run in fitted]
    held_out = [_compare(run, host, groups) for run in judged]
    errors = [abs(error) for one in held_out for _, _, error in one]
    return [
        f"| {' | '.join(_HEAD)} |",
        "|---" * len(_HEAD) + "|",
        *(_row("fit", run, one) for run, one in zip(fitted, fits, strict=True)),
        *(_row("held out", run, one) for run, one in zip(judged, held_out, strict=True)),
        "",
        "measured, predicted (error), after the first third of each run",
        f"held out: {sum(error <= _TOLERANCE for error in errors)} of {len(errors)} within {_TOLERANCE:.0%}",
        *_constants(host),
    ]


def _compare(run: PastRun, host: Host, groups: Sequence[Group]) -> list[tuple[float, float, float]]:
    """Measured, predicted and error of each figure."""
    found = msgspec.structs.astuple(measure(run))
    guessed = msgspec.structs.astuple(predict(run, host, groups))
    return [
        (one, guess, guess / one - 1 if one else guess) for one, guess in zip(found, guessed, strict=True)
    ]


def _row(use: str, run: PastRun, figures: Sequence[tuple[float, float, float]]) -> str:
    servers = f"{run.servers.count} x {run.servers.max_num_seqs}"
    cells = [use, run.name, f"{run.threads}", servers, f"{run.config.rollout.max_lag}"]
    cells += [f"{found:.2f}, {guess:.2f} ({error:+.0%})" for found, guess, error in figures]
    return f"| {' | '.join(cells)} |"


def _constants(host: Host) -> list[str]:
    decode = host.decode
    return [
        f"a step of a server: {decode.step_s * 1e3:.1f} ms + {decode.per_request_s * 1e3:.2f} ms an answer, "
        f"{decode.prefill_s * 1e3:.1f} ms for each request",
        "an optimizer step by one thread: "
        f"{host.train_fixed_s:.2f} s + {host.train_token_s * 1e3:.2f} ms a token, "
        f"{host.parallel_share:.0%} divided among threads",
        *(
            f"publish, {count} servers: {found.seconds:.2f} s, beside answers on all "
            f"{found.seconds / found.beside**count:.2f} s; each stands still for {found.swap_s:.2f} s"
            for count, found in sorted(host.publish.items())
        ),
        f"beside each other, over their shares of {host.num_cores} cores: trainer {host.trainer_beside:.2f}, "
        f"server {host.server_beside:.2f}",
    ]
