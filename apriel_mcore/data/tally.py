"""What has one domain outstanding, what part of it survives, and what was delivered?"""

import heapq

import msgspec

from apriel_mcore.data.epochs import Turn

MIN_SEEN = 4
"""Resolved groups before a keep rate is believed."""
MIN_KEEP_RATE = 0.05
BARREN_LIMIT, BARREN_QUOTAS = 200, 20
"""Groups in a row without a kept one that still count as bad luck: the larger of 200 and 20 quotas."""
SEEN_WINDOW = 64
"""Counters halve beyond this many groups, so that the keep rate follows the policy."""


class Ticket(Turn, frozen=True, kw_only=True):
    """Permission to generate one group; also the ledger's row while it is outstanding."""

    group_id: int
    domain: str
    version: int
    """Weights version at dispatch, or at the group's first rollout if the caller reports it."""


Ready = tuple[int, int, int, Ticket]
"""(version, group id, loss tokens, ticket): sorts oldest first, and equally whatever the order of arrival."""


class DomainTally(msgspec.Struct, kw_only=True):
    """Counters of one domain; every field is checkpointed."""

    pending: int = 0
    """Groups dispatched and not resolved."""
    ready: list[Ready] = []
    """Heap of the kept groups that wait for the trainer."""
    seen: float = 0.0
    kept: float = 0.0
    keep_rate: float = 1.0
    barren: int = 0
    """Groups resolved in a row without a kept one."""
    starving: bool = False
    """`barren` passed its limit and the alarm was raised."""
    completed: int = 0
    failed: int = 0
    stale: int = 0
    trained_groups: int = 0
    trained_tokens: int = 0

    @property
    def outstanding(self) -> int:
        """Groups pending or ready."""
        return len(self.ready) + self.pending

    @property
    def expected(self) -> float:
        """Kept groups to expect of what is outstanding."""
        return len(self.ready) + self.keep_rate * self.pending

    def observe_outcome(self, *, kept: bool) -> None:
        """Update the keep rate with a completed group."""
        self.completed += 1
        self.seen += 1.0
        self.kept += kept
        if self.seen > SEEN_WINDOW:
            self.seen *= 0.5
            self.kept *= 0.5
        if self.seen >= MIN_SEEN:
            # (kept + 2) / (seen + 4): the prior of one half keeps a run of luck from freezing the estimate.
            self.keep_rate = max(MIN_KEEP_RATE, (self.kept + 2.0) / (self.seen + 4.0))

    def observe_signal(self, *, kept: bool, quota: int) -> bool:
        """Follow the run of groups without a kept one; True when the domain begins to starve."""
        self.barren = 0 if kept else self.barren + 1
        starved, self.starving = self.starving, self.barren > max(BARREN_LIMIT, BARREN_QUOTAS * quota)
        return self.starving and not starved

    def add_ready(self, ticket: Ticket, loss_tokens: int) -> None:
        """A kept group now waits for the trainer."""
        heapq.heappush(self.ready, (ticket.version, ticket.group_id, loss_tokens, ticket))

    def take_oldest(self) -> Ready:
        """The ready group with the oldest version leaves for the trainer."""
        entry = heapq.heappop(self.ready)
        self.trained_groups += 1
        self.trained_tokens += entry[2]
        return entry

    def drop_before(self, version: float) -> list[Ticket]:
        """Remove the ready groups older than `version`."""
        dropped: list[Ticket] = []
        while self.ready and self.ready[0][0] < version:
            dropped.append(heapq.heappop(self.ready)[3])
        return dropped
