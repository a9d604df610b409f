"""All ranks wait for the servers together: one rank looks, the others are told that there is hope.

    first rank: look --WAIT every few seconds--> others     then GO, STOP, or what went wrong

A rank that waited in silence would take the wait for a broken collective, and would not hear of a request to
stop that comes while servers still load.
"""

import time
from collections.abc import Callable, Mapping
from typing import Protocol

from apriel_mcore.errors import AprielError, Preempted
from apriel_mcore.rollout.shared_feed import Ranks

_LOOK_S = 2.0
_TELL_S = 30.0
_WAIT, _GO, _STOP = b"wait", b"go", b"stop"


class Starting(Protocol):
    """Servers that are on their way (backstage.py)."""

    def have_started(self, *, within_s: float) -> bool:
        """Whether all serve, now or within a while; PoolError when one does not start."""
        ...

    def server_states(self) -> Mapping[str, str]:
        """State of each server, by name."""
        ...


def wait_for_servers(
    ranks: Ranks,
    servers: Starting,
    *,
    stop_requested: Callable[[], bool],
    tell: Callable[[str], object],
) -> None:
    """On the first rank: until all servers serve, telling how many do.

    Raises Preempted on a request to stop, and what `servers` raises; the other ranks raise with it.
    """
    start, told, said = time.monotonic(), 0.0, ""
    while True:
        try:
            started = servers.have_started(within_s=_LOOK_S)
        except AprielError as error:
            ranks.broadcast(str(error).encode())
            raise
        if stop_requested():
            ranks.broadcast(_STOP)
            raise _stopped()
        if started:
            ranks.broadcast(_GO)
            return
        ranks.broadcast(_WAIT)
        progress, now = _progress(servers.server_states()), time.monotonic()
        if progress != said or now - told > _TELL_S:
            tell(f"waiting for the rollout servers: {progress}; {now - start:.0f} s")
            said, told = progress, now


def listen_for_servers(ranks: Ranks) -> None:
    """On every other rank. Raises Preempted, or AprielError with what the first rank met."""
    while (word := ranks.broadcast(b"")) != _GO:
        if word == _STOP:
            raise _stopped()
        if word != _WAIT:
            raise AprielError(f"the first rank's servers did not start: {word.decode()}")


def _stopped() -> Preempted:
    return Preempted("stopped on request while the rollout servers started; run the same command to continue")


def _progress(states: Mapping[str, str]) -> str:
    waited_for = [f"{name} {state}" for name, state in states.items() if state != "serving"]
    return f"{len(states) - len(waited_for)} of {len(states)} serve, {', '.join(waited_for[:4])}" + (
        " ..." if len(waited_for) > 4 else ""
    )
