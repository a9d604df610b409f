"""Plans for several numbers of GPUs and several spreads of the lengths, on all cores of this machine."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import msgspec

from apriel_mcore.planning import search
from apriel_mcore.planning.outcome import Outcome
from apriel_mcore.planning.question import Question
from apriel_mcore.planning.search import Plan
from apriel_mcore.planning.workload import with_sigma


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a study looks at."""

    gpus: Sequence[int]
    most_lag: float = search.MOST_LAG
    weak_from: int = 0
    """So many GPUs train the recipe's batch, others one in proportion; 0: all train the recipe's."""
    skews: Sequence[float] = ()
    """Sigmas of the lengths, at the last number of GPUs and the `max_lag` of its plan."""


class Study(msgspec.Struct, frozen=True, kw_only=True):
    """What came out."""

    plans: dict[int, Plan]
    skews: dict[float, Outcome]


class _Size(msgspec.Struct, frozen=True, kw_only=True):
    question: Question
    num_gpus: int
    lag: float

    def plan(self) -> Plan:
        return search.plan(self.question, self.num_gpus, most_lag=self.lag)

    def best(self) -> Outcome:
        return search.best_at(self.question, self.num_gpus, max_lag=self.lag)


def run(question: Question, wanted: Wanted) -> Study:
    """InputError if nothing fits some number of GPUs."""
    sizes = sorted(set(wanted.gpus), reverse=True)  # what takes longest begins first
    questions = {num: _scaled(question, num, wanted) for num in sizes}
    jobs = [_Size(question=questions[num], num_gpus=num, lag=wanted.most_lag) for num in sizes]
    found = dict(zip(sizes, _on_all_cores(_Size.plan, jobs), strict=True))
    last = wanted.gpus[-1]
    skewed = [_skewed(questions[last], sigma) for sigma in wanted.skews]
    spread = [_Size(question=one, num_gpus=last, lag=found[last].chosen.max_lag) for one in skewed]
    skews = dict(zip(wanted.skews, _on_all_cores(_Size.best, spread), strict=True))
    return Study(plans={num: found[num] for num in wanted.gpus}, skews=skews)


def _on_all_cores[Job, Result](work: Callable[[Job], Result], jobs: Sequence[Job]) -> list[Result]:
    """New processes, not forks: numpy's threads do not survive one."""
    workers = min(len(jobs), os.cpu_count() or 1)
    if workers < 2:
        return [work(job) for job in jobs]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return list(pool.map(work, jobs))


def _scaled(question: Question, num_gpus: int, wanted: Wanted) -> Question:
    if not wanted.weak_from:
        return question
    train = question.config.train
    groups = max(1, round(train.groups_per_step * num_gpus / wanted.weak_from))
    changed = msgspec.structs.replace(train, groups_per_step=groups)
    config = msgspec.structs.replace(question.config, train=changed)
    return msgspec.structs.replace(question, config=config)


def _skewed(question: Question, sigma: float) -> Question:
    """Another spread, and the same means of what is generated."""
    lengths = {name: with_sigma(one, sigma, budget=question.budget) for name, one in question.lengths.items()}
    return msgspec.structs.replace(question, lengths=lengths)
