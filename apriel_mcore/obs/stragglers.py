"""Is one rollout server slower than the others? Its recent seconds a token against theirs, in medians."""

from collections import deque
from collections.abc import Sequence
from statistics import median

from apriel_mcore.types import Group

_KEPT = 256
_ENOUGH = 16


class Stragglers:
    """Learns from trained groups; says once when a server falls behind, and once when it has caught up."""

    def __init__(self, factor: float) -> None:
        self._factor = factor
        self._paces: dict[str, deque[float]] = {}
        self._slow: set[str] = set()

    def observe(self, groups: Sequence[Group]) -> list[str]:
        """Take the rollouts of a step; what there is to say."""
        for group in groups:
            for rollout in group.rollouts_G:
                paces = self._paces.setdefault(rollout.server, deque(maxlen=_KEPT))
                paces.append(rollout.seconds / max(1, len(rollout.tokens_T)))
        known = {name: median(paces) for name, paces in self._paces.items() if len(paces) >= _ENOUGH}
        if len(known) < 2:
            return []
        return [word for name, pace in sorted(known.items()) if (word := self._word(name, pace, known))]

    def _word(self, name: str, pace: float, known: dict[str, float]) -> str:
        """About one server; empty when nothing changed."""
        others = median(value for other, value in known.items() if other != name)
        is_slow, was_slow = pace > self._factor * others, name in self._slow
        if is_slow == was_slow:
            return ""
        if is_slow:
            self._slow.add(name)
            return (
                f"straggler: {name} takes {pace / others:.1f} times as long a token as the other servers "
                f"({1000 * pace:.1f} ms against {1000 * others:.1f} ms)"
            )
        self._slow.remove(name)
        return f"{name} is as fast as the other servers again"
