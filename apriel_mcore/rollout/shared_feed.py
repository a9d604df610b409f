"""The same groups on every rank: one rank feeds, the others listen."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from apriel_mcore.config.schema import RunConfig
from apriel_mcore.errors import AprielError
from apriel_mcore.rollout.feed import RolloutFeed, StopRequested, WeightsWanted
from apriel_mcore.seams import Taken
from apriel_mcore.types import Group


class Ranks(Protocol):
    """Collectives over all trainer ranks (mcore/parallel.py)."""

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that owns the pool and writes files."""
        ...

    def broadcast(self, payload: bytes) -> bytes:
        """The first rank's payload, on every rank."""
        ...

    def barrier(self) -> None:
        """Wait for every rank."""
        ...


class _Taken(msgspec.Struct, frozen=True, tag="groups"):
    groups: list[Group]
    stage: int


class _Stop(msgspec.Struct, frozen=True, tag="stop"):
    pass


class _Publish(msgspec.Struct, frozen=True, tag="publish"):
    pass


class _Broken(msgspec.Struct, frozen=True, tag="broken"):
    message: str


type Stages = Sequence[RunConfig]
"""The recipe as each of its stages has it."""

type _Word = _Taken | _Stop | _Publish | _Broken

_decoder: msgspec.msgpack.Decoder[_Word] = msgspec.msgpack.Decoder(_Taken | _Stop | _Publish | _Broken)


class FirstRankFeed:
    """seams.Feed on the first rank: takes groups and tells the others."""

    def __init__(
        self, feed: RolloutFeed, stages: Stages, ranks: Ranks, publish_again: Callable[[], object]
    ) -> None:
        self._feed = feed
        self._stages = stages
        self._ranks = ranks
        self._publish_again = publish_again

    def take(self) -> Taken:
        """Groups and recipe of the next step.

        Whatever stops the feed is told to every rank before it is raised.
        Servers that came back without weights have them published again meanwhile, by all ranks together.
        """
        while True:
            try:
                batch = self._feed.take()
            except WeightsWanted:
                self._tell(_Publish())
                self._publish_again()
                continue
            except StopRequested:
                self._tell(_Stop())
                raise
            except AprielError as error:
                self._tell(_Broken(message=str(error)))
                raise
            self._tell(_Taken(groups=batch.groups, stage=batch.aim.stage))
            return Taken(batch.groups, self._stages[batch.aim.stage])

    def settle(self, version: int) -> None:
        """Free the places of the groups taken last."""
        self._feed.settle(version)

    def snapshot(self) -> dict[str, Any]:
        """State for a checkpoint of now."""
        return self._feed.snapshot()

    def _tell(self, word: _Word) -> None:
        self._ranks.broadcast(msgspec.msgpack.encode(word))


class ListeningFeed:
    """seams.Feed on every other rank."""

    def __init__(self, stages: Stages, ranks: Ranks, publish_again: Callable[[], object]) -> None:
        self._stages = stages
        self._ranks = ranks
        self._publish_again = publish_again

    def take(self) -> Taken:
        """What the first rank took; raises what it raised."""
        while True:
            word = _decoder.decode(self._ranks.broadcast(b""))
            match word:
                case _Taken():
                    return Taken(word.groups, self._stages[word.stage])
                case _Publish():
                    self._publish_again()
                case _Stop():
                    raise StopRequested
                case _Broken():
                    raise AprielError(f"the feed on the first rank failed: {word.message}")

    def settle(self, version: int) -> None:
        """Nothing to free here."""

    def snapshot(self) -> dict[str, Any]:
        """The first rank saves the feed's state."""
        return {}
