"""Ranks that wait for servers: all hear the same end, whatever it is, and none waits in silence."""

from collections.abc import Callable

import pytest

from apriel_mcore.errors import AprielError, PoolError, Preempted
from apriel_mcore.rollout.shared_start import listen_for_servers, wait_for_servers


class Wire:
    """Both ends of the ranks' broadcasts: what the first rank said, replayed to another one."""

    is_first = True

    def __init__(self) -> None:
        self.said: list[bytes] = []

    def broadcast(self, payload: bytes) -> bytes:
        self.said.append(payload)
        return payload

    def barrier(self) -> None:
        raise AssertionError("nobody waits at a barrier")


class Heard(Wire):
    """The other rank."""

    is_first = False

    def broadcast(self, payload: bytes) -> bytes:
        return self.said.pop(0)


class Servers:
    """Serve after so many looks; or break then."""

    def __init__(self, looks: int, error: AprielError | None = None) -> None:
        self._looks = looks
        self._error = error

    def have_started(self, *, within_s: float) -> bool:
        self._looks -= 1
        if self._looks <= 0 and self._error:
            raise self._error
        return self._looks <= 0

    def server_states(self) -> dict[str, str]:
        return {"server-0": "serving", "server-1": "starting"}


def both(servers: Servers, stop: Callable[[], bool] = lambda: False) -> tuple[object, object, list[str]]:
    """What the first rank and another one end with, and what was told."""
    wire, told = Wire(), []
    first = ending(lambda: wait_for_servers(wire, servers, stop_requested=stop, tell=told.append))
    other = Heard()
    other.said = wire.said
    second = ending(lambda: listen_for_servers(other))
    assert other.said == [], "every word is heard"
    return first, second, told


def ending(work: Callable[[], None]) -> object:
    try:
        return work()
    except AprielError as error:
        return error


def test_all_go_on_when_the_servers_serve() -> None:
    first, second, told = both(Servers(looks=3))
    assert (first, second) == (None, None)
    assert len(told) == 1, "progress is told when it changes, not at every look"
    assert "1 of 2 serve" in told[0]
    assert "server-1 starting" in told[0]


def test_a_stop_is_heard_while_servers_start() -> None:
    asked = iter([False, True])
    first, second, _ = both(Servers(looks=100), lambda: next(asked))
    assert isinstance(first, Preempted)
    assert isinstance(second, Preempted)


@pytest.mark.parametrize("looks", [1, 4])
def test_a_server_that_does_not_start_ends_every_rank(looks: int) -> None:
    first, second, _ = both(Servers(looks, PoolError("server-1 ended before it was ready")))
    assert isinstance(first, PoolError)
    assert isinstance(second, AprielError)
    assert "server-1 ended" in str(second)
