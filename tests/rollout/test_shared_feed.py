"""Every rank hears the same of the feed: groups, a stop, a failure, or that weights must be sent again."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

from apriel_mcore.config.load import load
from apriel_mcore.data.controllers import Aim
from apriel_mcore.errors import AprielError, PoolError
from apriel_mcore.rollout.feed import StopRequested, TakenBatch, WeightsWanted
from apriel_mcore.rollout.shared_feed import FirstRankFeed, ListeningFeed
from apriel_mcore.seams import Taken


class Wire:
    """Two ranks' broadcasts in threads."""

    def __init__(self) -> None:
        self.both = threading.Barrier(2)
        self.word = b""


class Rank:
    """One end of the wire."""

    def __init__(self, wire: Wire, *, is_first: bool) -> None:
        self.is_first = is_first
        self._wire = wire

    def broadcast(self, payload: bytes) -> bytes:
        if self.is_first:
            self._wire.word = payload
        self._wire.both.wait(10)
        word = self._wire.word
        self._wire.both.wait(10)
        return word

    def barrier(self) -> None:
        self._wire.both.wait(10)


QUICKSTART = load(Path(__file__).parents[2] / "recipes" / "quickstart.toml")
STAGES = (QUICKSTART, msgspec.structs.replace(QUICKSTART, name="second"))
SECOND_STAGE = TakenBatch([], Aim(1, QUICKSTART.ratios))


class ScriptedFeed:
    """Does one thing after another."""

    def __init__(self, *script: TakenBatch | Exception) -> None:
        self._script = list(script)

    def take(self) -> TakenBatch:
        thing = self._script.pop(0)
        if isinstance(thing, Exception):
            raise thing
        return thing


def outcomes(*script: TakenBatch | Exception) -> tuple[list[Any], list[str]]:
    """What `take` gave or raised on both ranks, and who published again."""
    wire = Wire()
    published: list[str] = []
    feed: Any = ScriptedFeed(*script)
    first = FirstRankFeed(feed, STAGES, Rank(wire, is_first=True), lambda: published.append("first"))
    second = ListeningFeed(STAGES, Rank(wire, is_first=False), lambda: published.append("second"))

    def attempt(take: Callable[[], Taken]) -> Any:
        try:
            return take()
        except Exception as error:
            return error

    with ThreadPoolExecutor(2) as threads:
        return list(threads.map(attempt, (first.take, second.take))), sorted(published)


def test_both_ranks_take_the_same_groups() -> None:
    assert outcomes(SECOND_STAGE) == ([Taken([], STAGES[1])] * 2, [])


def test_wanted_weights_are_published_by_all_ranks_before_the_groups_come() -> None:
    taken, published = outcomes(WeightsWanted(), WeightsWanted(), SECOND_STAGE)
    assert taken == [Taken([], STAGES[1])] * 2
    assert published == ["first", "first", "second", "second"]


@pytest.mark.parametrize(
    ("error", "kind"), [(StopRequested(), StopRequested), (PoolError("lost"), AprielError)]
)
def test_what_ends_the_first_rank_ends_the_other(error: Exception, kind: type[Exception]) -> None:
    (first, second), published = outcomes(error)
    assert first is error
    assert isinstance(second, kind)
    assert published == []
