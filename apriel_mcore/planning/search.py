"""Which split, layout and `max_lag` of N GPUs is fastest?

    for each max_lag: fastest split in closed form --climb by simulation--> no neighbour is faster --> Outcome

The closed form knows neither when answers end nor who waits for whom, so it is only where the climb begins.
"""

import math
from bisect import bisect_left
from collections.abc import Iterator
from itertools import pairwise

import msgspec

from apriel_mcore.planning.outcome import Outcome, draw, simulate
from apriel_mcore.planning.question import Question
from apriel_mcore.planning.splits import Split, own_split, splits

LAGS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
MOST_LAG = 8.0
"""Chosen unless the user allows more: the largest at which AReaL (arXiv 2505.24298) lost little."""
_GAIN = 0.03
"""Of the step time: less is none."""
_SCREEN = 0
"""Seed of the climb."""
_SEEDS = (1, 2, 3)
"""Of what is told: none by which anything was chosen."""

type _Ladders = dict[int, list[Split]]
"""By GPUs of a server: splits with ever larger and faster trainers."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Of one number of GPUs."""

    by_lag: list[Outcome]
    """The fastest split found for each `max_lag`, least first."""
    chosen: Outcome
    """Of them, as the bound on the lag allows."""


def plan(question: Question, num_gpus: int, *, most_lag: float) -> Plan:
    """Chosen is the least `max_lag` within 3% of the shortest step up to `most_lag`; larger ones are looked
    at, without a climb, until two doublings in a row gain less than 3%. InputError if nothing fits."""
    found: list[Outcome] = []
    for max_lag in sorted({*LAGS, most_lag}):
        begin = found[-1].split if found else None
        within = max_lag <= most_lag
        found.append(best_at(question, num_gpus, max_lag=max_lag, begin=begin, climbs=within))
        if max_lag >= most_lag and _levels_off(found):
            break
    allowed = [outcome for outcome in found if outcome.max_lag <= most_lag]
    shortest = min(outcome.step_s for outcome in allowed)
    chosen = next(outcome for outcome in allowed if outcome.step_s <= (1 + _GAIN) * shortest)
    return Plan(by_lag=found, chosen=chosen)


def best_at(
    question: Question, num_gpus: int, *, max_lag: float, begin: Split | None = None, climbs: bool = True
) -> Outcome:
    """The faster of the closed form's split and of one like `begin`; or the fastest that a climb finds from
    there."""
    found = splits(question, num_gpus, max_lag=max_lag)
    climb = _Climb(question, _ladders(found), max_lag)
    starts = [found[0], *([climb.rung(begin.server.tensor, begin)] if begin else [])]
    here = min(starts, key=climb.step_s)
    return simulate(question, climb.up(here) if climbs else here, max_lag=max_lag, seeds=_SEEDS)


def as_is(question: Question) -> Outcome:
    """The recipe's own split, layout, `max_lag` and `max_groups_in_flight`, simulated."""
    max_lag = question.config.rollout.max_lag
    bound = math.inf if max_lag == "unbounded" else max_lag
    return simulate(question, own_split(question, max_lag=bound), max_lag=bound, seeds=_SEEDS)


def _levels_off(found: list[Outcome]) -> bool:
    """Neither of the last two doublings gained anything."""
    last = [outcome.step_s for outcome in found[-3:]]
    return len(last) == 3 and all(after > (1 - _GAIN) * before for before, after in pairwise(last))


def _ladders(found: list[Split]) -> _Ladders:
    """Without trainers that are slower than a smaller one."""
    ladders: _Ladders = {}
    for split in sorted(found, key=lambda split: (split.num_trainers, split.train_s)):
        ladder = ladders.setdefault(split.server.tensor, [])
        if not ladder or split.train_s < ladder[-1].train_s:
            ladder.append(split)
    return ladders


class _Climb:
    """From split to faster neighbour, by simulations with one seed for all: equal luck."""

    def __init__(self, question: Question, ladders: _Ladders, max_lag: float) -> None:
        self._ladders = ladders
        self._question = question
        self._max_lag = max_lag
        self._seen: dict[Split, float] = {}

    def step_s(self, split: Split) -> float:
        """Simulated once."""
        if split not in self._seen:
            drawn = draw(self._question, split, max_lag=self._max_lag, seed=_SCREEN)
            self._seen[split] = drawn.step_s
        return self._seen[split]

    def up(self, here: Split) -> Split:
        """To where no neighbour is faster."""
        while (best := min(self._neighbours(here), key=self.step_s, default=here)) != here:
            if self.step_s(best) >= self.step_s(here):
                break
            here = best
        return here

    def _neighbours(self, here: Split) -> Iterator[Split]:
        """A smaller or larger trainer, smaller or larger servers."""
        ladder = self._ladders[here.server.tensor]
        place = bisect_left(ladder, here.num_trainers, key=lambda split: split.num_trainers)
        yield from (split for split in ladder[max(0, place - 1) : place + 2] if split != here)
        for tensor in (here.server.tensor // 2, here.server.tensor * 2):
            if tensor in self._ladders:
                yield self.rung(tensor, here)

    def rung(self, tensor: int, like: Split) -> Split:
        """With servers of this size, and a trainer about as large."""
        return min(self._ladders[tensor], key=lambda one: abs(math.log(one.num_trainers / like.num_trainers)))
