"""Who worked beside whom in a run? From its timeline to stretches in which nobody begins or ends anything."""

from collections import Counter
from collections.abc import Iterator

import msgspec

from apriel_mcore.planning.past_run import PastRun


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """One such stretch."""

    seconds: float
    running: tuple[int, ...]
    """Answers of each server that has any."""
    trains: bool
    publishes: bool
    swaps: bool
    """A server takes weights, and stands still."""

    @property
    def trainer_works(self) -> bool:
        """A step's publish is part of it."""
        return self.trains or self.publishes


def moments(run: PastRun, *, after: float, before: float) -> Iterator[Moment]:
    """Between two times."""
    spans = run.spans_of("answer", "train", "publish", "take weights")
    begun = [(span.start, 1, span) for span in spans]
    ended = [(span.start + span.seconds, -1, span) for span in spans]
    running: Counter[str] = Counter()
    doing: Counter[str] = Counter()
    since = after
    for when, sign, span in sorted(begun + ended, key=lambda change: change[:2]):
        until = min(when, before)
        if since < until:
            yield Moment(
                seconds=until - since,
                running=tuple((+running).values()),
                trains=doing["train"] > 0,
                publishes=doing["publish"] > 0,
                swaps=doing["take weights"] > 0,
            )
            since = until
        if span.name == "answer":
            running[span.lane] += sign
        else:
            doing[span.name] += sign
