"""Which problems of a domain are worth asking again in the next epoch?

    resolve --solve rate of the group--> observe;    new epoch --> admits(problem)?

A group that is all right or all wrong teaches little. A problem whose last solve rate lies outside the band
sits out most epochs, and is let in again by a seeded coin, because the policy moves (Nemotron-Cascade, arXiv
2512.13607).
"""

import random
from collections.abc import Mapping
from typing import Protocol

from apriel_mcore.config.schema import CurriculumSettings, NoCurriculum, SolveRateCurriculum


class Curriculum(Protocol):
    """What an EpochOrder asks; one for each domain."""

    def observe(self, problem_id: str, solve_rate: float) -> None:
        """A group of the problem was judged."""
        ...

    def admits(self, problem_id: str, epoch: int) -> bool:
        """Whether the problem takes part in an epoch."""
        ...

    def state(self) -> dict[str, float]:
        """For the checkpoint."""
        ...

    def load(self, state: Mapping[str, float]) -> None:
        """Continue where the state was saved."""
        ...


class Everything:
    """Every problem in every epoch."""

    def observe(self, problem_id: str, solve_rate: float) -> None:
        """Nothing is learnt from solve rates."""

    def admits(self, problem_id: str, epoch: int) -> bool:
        """All take part."""
        return True

    def state(self) -> dict[str, float]:
        """There is none."""
        return {}

    def load(self, state: Mapping[str, float]) -> None:
        """There is none."""


class SolveRateBand:
    """Problems whose last solve rate is inside the band, and now and then one of the others."""

    def __init__(self, domain: str, settings: SolveRateCurriculum, *, seed: int) -> None:
        self._domain = domain
        self._settings = settings
        self._seed = seed
        self._solve_rates: dict[str, float] = {}

    def observe(self, problem_id: str, solve_rate: float) -> None:
        """The latest solve rate counts."""
        self._solve_rates[problem_id] = solve_rate

    def admits(self, problem_id: str, epoch: int) -> bool:
        """Problems that were never judged take part; the coin depends on seed, problem and epoch alone."""
        settings = self._settings
        solve_rate = self._solve_rates.get(problem_id)
        if solve_rate is None or settings.too_hard < solve_rate < settings.too_easy:
            return True
        coin = random.Random(f"{self._seed}/{self._domain}/{epoch}/{problem_id}").random()
        return coin < settings.readmit

    def state(self) -> dict[str, float]:
        """Last solve rate of each problem."""
        return dict(self._solve_rates)

    def load(self, state: Mapping[str, float]) -> None:
        """Continue where the state was saved."""
        self._solve_rates = dict(state)


def curriculum_of(settings: CurriculumSettings, domain: str, *, seed: int) -> Curriculum:
    """The recipe's curriculum for one domain."""
    match settings:
        case NoCurriculum():
            return Everything()
        case SolveRateCurriculum():
            return SolveRateBand(domain, settings, seed=seed)
