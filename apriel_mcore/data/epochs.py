"""Which problem of a domain is asked next? Every problem once per epoch, in a seeded order.

requeue (front first)  or  permutation(seed, domain, epoch)[cursor]  ->  Turn

Drawn with replacement, as the reference does, an epoch is as many draws as there are problems.
"""

import hashlib
import random
from collections import deque
from collections.abc import Iterable, Sequence

import msgspec

from apriel_mcore.data.curriculum import Curriculum
from apriel_mcore.errors import InputError


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """A problem's place in the order."""

    problem_id: str
    epoch: int
    attempt: int
    """Earlier attempts at this turn that failed."""


class EpochState(msgspec.Struct, frozen=True, kw_only=True):
    """What a checkpoint holds of an EpochOrder."""

    fingerprint: str
    epoch: int
    cursor: int
    requeue: list[Turn]
    quarantined: list[str]
    admitted: list[int]
    """Positions of the epoch's problems, in order."""
    curriculum: dict[str, float]


class EpochOrder:
    """Problems of one domain; what was lost comes again before anything new."""

    def __init__(
        self,
        domain: str,
        problem_ids: Sequence[str],
        *,
        seed: int,
        max_attempts: int,
        replacement: bool,
        curriculum: Curriculum,
    ) -> None:
        if len(set(problem_ids)) != len(problem_ids):
            raise InputError(f"domain {domain}: two problems have the same id; remove the duplicate rows")
        self._domain = domain
        self._problem_ids = tuple(problem_ids)
        self._fingerprint = hashlib.sha256("\n".join(problem_ids).encode()).hexdigest()
        self._seed = seed
        self._max_attempts = max_attempts
        self._replacement = replacement
        self._curriculum = curriculum
        self._requeue: deque[Turn] = deque()
        self._quarantined: dict[str, None] = {}  # a set that keeps its order in the checkpoint
        self._begin_epoch(0)

    @property
    def num_quarantined(self) -> int:
        """Problems set aside because every attempt at them failed."""
        return len(self._quarantined)

    def next(self) -> Turn:
        """The next turn. The domain must have problems."""
        if self._requeue:
            return self._requeue.popleft()
        if len(self._quarantined) == len(self._problem_ids):
            # A judge or sandbox that was down for a while must not empty the domain for good.
            self._quarantined.clear()
        while True:
            if self._cursor == len(self._order):
                self._begin_epoch(self._epoch + 1)
            problem_id = self._problem_ids[self._order[self._cursor]]
            self._cursor += 1
            if problem_id not in self._quarantined:
                return Turn(problem_id=problem_id, epoch=self._epoch, attempt=0)

    def observe(self, problem_id: str, solve_rate: float) -> None:
        """A group of the problem was judged."""
        self._curriculum.observe(problem_id, solve_rate)

    def put_back(self, turn: Turn) -> None:
        """Ask it again, after what already waits: its group was dropped, which is no fault of the problem."""
        self._requeue.append(_bare(turn))

    def put_first(self, turns: Iterable[Turn]) -> None:
        """Ask these again before anything else, in the given order."""
        self._requeue.extendleft(_bare(turn) for turn in reversed(list(turns)))

    def fail(self, turn: Turn) -> None:
        """An attempt failed: ask again, or quarantine the problem after the last attempt."""
        attempt = turn.attempt + 1
        if attempt < self._max_attempts:
            self._requeue.append(Turn(problem_id=turn.problem_id, epoch=turn.epoch, attempt=attempt))
        else:
            self._quarantined[turn.problem_id] = None

    def state(self) -> EpochState:
        """For the checkpoint."""
        return EpochState(
            fingerprint=self._fingerprint,
            epoch=self._epoch,
            cursor=self._cursor,
            requeue=list(self._requeue),
            quarantined=list(self._quarantined),
            admitted=self._order,
            curriculum=self._curriculum.state(),
        )

    def check(self, state: EpochState) -> None:
        """InputError unless the state was saved over the same problems in the same order."""
        if state.fingerprint != self._fingerprint:
            raise InputError(
                f"domain {self._domain}: its {len(self._problem_ids)} problems are not those of the "
                "checkpoint; restore the dataset, or start in a new run directory"
            )

    def load(self, state: EpochState) -> None:
        """Continue where the state was saved."""
        self.check(state)
        self._requeue = deque(state.requeue)
        self._quarantined = dict.fromkeys(state.quarantined)
        self._curriculum.load(state.curriculum)
        self._epoch, self._cursor, self._order = state.epoch, state.cursor, list(state.admitted)

    def _begin_epoch(self, epoch: int) -> None:
        self._epoch, self._cursor = epoch, 0
        # A string seed is hashed with SHA-512: the same order on every platform and Python build.
        stream = random.Random(f"{self._seed}/{self._domain}/{epoch}")
        self._order = list(range(len(self._problem_ids)))
        if self._replacement:
            self._order = [stream.randrange(len(self._order)) for _ in self._order]
        else:
            stream.shuffle(self._order)
        admitted = [i for i in self._order if self._curriculum.admits(self._problem_ids[i], epoch)]
        self._order = admitted or self._order  # a domain is never emptied


def _bare(turn: Turn) -> Turn:
    """A ticket is a turn with more to it; the queue holds plain turns."""
    return Turn(problem_id=turn.problem_id, epoch=turn.epoch, attempt=turn.attempt)
