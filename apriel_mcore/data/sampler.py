"""Which domain is asked next, how much may be outstanding, and what does the next batch hold?

    dispatch -> pending -> resolve -> ready -> compose -> taken (in training) -> settle (published)
                              '-> filtered or failed        '-> stale: too old, problem asked again

The object is pure: no clock, no I/O. The same calls give the same results, so a journal of them can be
replayed. A `compose` or `dispatch` that answers None changed nothing, as long as `version` was seen before.

Waiting rules. `dispatch` waits (None) while outstanding work is worth max_lag batches beyond the one in
training; unblocked by resolve and settle. `compose` waits while a domain is short of its quota; unblocked by
resolve. They never wait for each other for ever: while a batch waits, a short domain either has groups
pending or is open, whatever the bound says (the floor rule in `_open`).

Bounds. Outstanding work counts in expected kept groups (ready + keep rate * pending + taken), not in
submissions, so filtering cannot exhaust it. A batch composed at version V holds no group older than
V - max_group_age: groups are dropped, whole, when the version rises past them. max_lag = 0 is strictly
on-policy: age 0.

The rule `deficit` is ours; `paper` (arXiv 2604.02007) and `static` are there to be compared with. Suffix _D:
one value per domain, in recipe order.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from apriel_mcore.config import schema
from apriel_mcore.data.compose import makeshift_counts, oldest_counts, quota_counts
from apriel_mcore.data.curriculum import curriculum_of
from apriel_mcore.data.draws import DomainDraws
from apriel_mcore.data.epochs import EpochOrder, EpochState
from apriel_mcore.data.mixture import Mixture, MixtureState
from apriel_mcore.data.tally import DomainTally, Ticket
from apriel_mcore.errors import InputError
from apriel_mcore.types import Outcome

__all__ = ["Composition", "DomainScheduler", "Ticket"]

RAW_BOUND = 4
"""Outstanding groups, kept or not, stay below this multiple of the bound on expected kept ones."""


class Composition(msgspec.Struct, frozen=True, kw_only=True):
    """What one optimizer step trains."""

    group_ids: tuple[int, ...]
    """Oldest version first, then in the order of dispatch."""
    stale: tuple[int, ...]
    """Kept groups dropped since the last composition: too old, or their domain left the mixture."""
    short: bool
    """Forced: the quotas (or the batch) could not be filled."""


class SchedulerState(msgspec.Struct, frozen=True, kw_only=True):
    """What a checkpoint holds."""

    version: int
    composed: int
    picks: int
    taken: int
    short_batches: int
    dropped: list[int]
    ledger: list[Ticket]
    mixture: MixtureState
    tallies: dict[str, DomainTally]
    orders: dict[str, EpochState]
    draws: list[int]


class DomainScheduler:
    """The domain mixture as one object; `ratios` are met by what is trained, not by what is asked."""

    def __init__(
        self,
        ratios: Mapping[str, float],
        problem_ids: Mapping[str, Sequence[str]],
        *,
        groups_per_step: int,
        group_size: int,
        settings: schema.Sampler,
        max_lag: float | Literal["unbounded"],
        max_group_age: float | Literal["off"],
        seed: int,
    ) -> None:
        """Domains are those of `ratios`, in its order; InputError for a ratio without problems."""
        self._names = tuple(ratios)
        self._index = {name: domain for domain, name in enumerate(self._names)}
        self._has_problems_D = [bool(problem_ids.get(name)) for name in self._names]
        self._mixture = Mixture(self._normalised(ratios), settings=settings, groups_per_step=groups_per_step)
        self._groups_per_step = groups_per_step
        self._group_size = group_size
        self._settings = settings
        self._orders = [
            EpochOrder(
                name,
                problem_ids.get(name, ()),
                seed=seed,
                max_attempts=settings.max_attempts,
                replacement=settings.kind != "deficit",
                curriculum=curriculum_of(settings.curriculum, name, seed=seed),
            )
            for name in self._names
        ]
        rule = "paper" if settings.kind == "paper" else "static"
        self._draws = DomainDraws(rule, seed=seed)
        self._tallies = [DomainTally() for _ in self._names]
        self._ledger: dict[int, Ticket] = {}
        self._dropped: list[int] = []
        self._alarms: list[str] = []
        self._version = self._composed = -1
        self._picks = self._taken = self._short_batches = 0
        self.set_bounds(max_lag=max_lag, max_group_age=max_group_age)

    # --- calls of the pool --------------------------------------------------------------------------

    def dispatch(self, version: int) -> Ticket | None:
        """The next group to generate under weights `version`; None: wait for a resolve or a settle."""
        self._advance(version)
        open_domains = self._open()
        if not open_domains:
            return None
        if self._settings.kind == "deficit":
            domain = self._largest_deficit(open_domains)
        else:
            completed_D = [tally.completed * self._group_size for tally in self._tallies]
            domain = self._draws.pick(self._mixture.weights_D, completed_D, open_domains)
        turn = self._orders[domain].next()
        ticket = Ticket(
            problem_id=turn.problem_id,
            epoch=turn.epoch,
            attempt=turn.attempt,
            group_id=self._picks,
            domain=self._names[domain],
            version=version,
        )
        self._picks += 1
        self._tallies[domain].pending += 1
        self._ledger[ticket.group_id] = ticket
        return ticket

    def start(self, group_id: int, version: int) -> None:
        """Optional: the group's first rollout began under `version`; its age counts from there."""
        self._ledger[group_id] = msgspec.structs.replace(self._ledger[group_id], version=version)

    def resolve(
        self, group_id: int, outcome: Outcome, *, loss_tokens: int = 0, solve_rate: float = 0.5
    ) -> None:
        """A dispatched group is done: kept, filtered (no learning signal), or failed (asked again).

        `loss_tokens` are the response tokens of all its rollouts, which the token units need; `solve_rate` is
        the share of them that the judge found right, which a curriculum needs.
        """
        assert group_id in self._ledger, f"group {group_id} is not outstanding"
        ticket = self._ledger.pop(group_id)
        domain = self._index[ticket.domain]
        tally = self._tallies[domain]
        tally.pending -= 1
        if outcome == "failed":
            tally.failed += 1
            self._orders[domain].fail(ticket)
        else:
            self._orders[domain].observe(ticket.problem_id, solve_rate)
            tally.observe_outcome(kept=outcome == "kept")
            self._mixture.observe_completed(domain, loss_tokens, kept=outcome == "kept")
        if outcome == "kept":
            tally.add_ready(ticket, loss_tokens)
            self._drop(domain)
        if tally.observe_signal(kept=outcome == "kept", quota=self._mixture.quotas_D[domain]):
            self._alarms.append(
                f"domain {ticket.domain}: {tally.barren} groups in a row without a learning signal "
                f"({tally.failed} failed so far); its problems are all too easy or too hard for the policy, "
                "or its judge is broken"
            )

    # --- calls of the trainer -----------------------------------------------------------------------

    def compose(self, version: int, *, force: bool = False) -> Composition | None:
        """The batch to train on top of weights `version`; None: wait for a resolve.

        With `force` it takes what is ready, at least one group; the caller's clock decides when.
        """
        self._advance(version)
        counts_D, short = self._counts(force=force)
        if counts_D is None:
            return None
        entries = [
            tally.take_oldest()
            for tally, count in zip(self._tallies, counts_D, strict=True)
            for _ in range(count)
        ]
        entries.sort(key=lambda entry: entry[:2])
        self._composed = version
        self._taken += len(entries)
        self._short_batches += short
        tokens_D = [0] * len(self._names)
        for _, _, loss_tokens, ticket in entries:
            tokens_D[self._index[ticket.domain]] += loss_tokens
        self._mixture.observe_batch(counts_D, tokens_D, short=short)
        stale, self._dropped = tuple(self._dropped), []
        return Composition(group_ids=tuple(entry[1] for entry in entries), stale=stale, short=short)

    def settle(self) -> None:
        """Weights trained on everything composed so far are published: their places are free."""
        self._taken = 0
        self._advance(self._composed + 1)

    @property
    def ratios(self) -> dict[str, float]:
        """Current targets, by domain."""
        return dict(zip(self._names, self._mixture.weights_D, strict=True))

    def set_ratios(self, ratios: Mapping[str, float]) -> None:
        """New targets from the next dispatch on; the past mixture is not paid back.

        A domain that leaves (ratio 0) loses its ready groups; their problems come first when it returns.
        """
        if set(ratios) != set(self._names):
            raise InputError(f"ratios name the domains {sorted(ratios)}, the run has {sorted(self._names)}")
        self._mixture.change(self._normalised(ratios))
        for domain in range(len(self._names)):
            self._drop(domain)

    def set_bounds(
        self, *, max_lag: float | Literal["unbounded"], max_group_age: float | Literal["off"]
    ) -> None:
        """How far generation may run ahead from now on; ready groups that are too old for it are dropped.

        No part of `state`: whoever moves them does so again after `load`.
        """
        self._max_lag = float("inf") if max_lag == "unbounded" else max_lag
        self._max_age = float("inf") if max_group_age == "off" else max_group_age
        if self._max_lag == 0:
            self._max_age = 0.0
        for domain in range(len(self._names)):
            self._drop(domain)

    # --- checkpoint ---------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Everything, in plain JSON types; `load` of it continues as if nothing had happened."""
        state = SchedulerState(
            version=self._version,
            composed=self._composed,
            picks=self._picks,
            taken=self._taken,
            short_batches=self._short_batches,
            dropped=self._dropped,
            ledger=list(self._ledger.values()),
            mixture=self._mixture.state(),
            tallies=dict(zip(self._names, self._tallies, strict=True)),
            orders={name: order.state() for name, order in zip(self._names, self._orders, strict=True)},
            draws=self._draws.state(),
        )
        return msgspec.to_builtins(state)

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over a state; groups in flight stay in flight until `requeue_in_flight`.

        InputError when the domains or their problems are not those of the checkpoint.
        """
        saved = msgspec.convert(state, SchedulerState)
        if tuple(saved.tallies) != self._names:
            raise InputError(
                f"the checkpoint has the domains {list(saved.tallies)}, the recipe {list(self._names)}"
            )
        for name, order in zip(self._names, self._orders, strict=True):
            order.check(saved.orders[name])
        for name, order in zip(self._names, self._orders, strict=True):
            order.load(saved.orders[name])
        self._version, self._composed = saved.version, saved.composed
        self._picks, self._taken, self._short_batches = saved.picks, saved.taken, saved.short_batches
        self._dropped = saved.dropped
        self._ledger = {ticket.group_id: ticket for ticket in saved.ledger}
        self._tallies = [saved.tallies[name] for name in self._names]
        self._mixture.load(saved.mixture)
        self._draws.load(saved.draws)

    def requeue_in_flight(self) -> None:
        """After a crash: what was in flight is lost, and asked again before anything new."""
        for domain, name in enumerate(self._names):
            self._orders[domain].put_first(row for row in self._ledger.values() if row.domain == name)
            self._tallies[domain].pending = 0
        self._ledger.clear()

    # --- reports ------------------------------------------------------------------------------------

    @property
    def starving(self) -> list[str]:
        """Domains that have resolved very many groups in a row without a learning signal."""
        return [name for name, tally in zip(self._names, self._tallies, strict=True) if tally.starving]

    def alarms(self) -> list[str]:
        """Messages since the last call: one when a domain begins to starve."""
        messages, self._alarms = self._alarms, []
        return messages

    def metrics(self) -> dict[str, float]:
        """Numbers of the run so far, `NAME.DOMAIN`; shares are of what was composed for training."""
        groups = max(1, sum(tally.trained_groups for tally in self._tallies))
        tokens = max(1, sum(tally.trained_tokens for tally in self._tallies))
        numbers = {"short_batches": float(self._short_batches)}
        for domain, (name, tally) in enumerate(zip(self._names, self._tallies, strict=True)):
            numbers |= {
                f"ready.{name}": float(len(tally.ready)),
                f"pending.{name}": float(tally.pending),
                f"keep_rate.{name}": tally.keep_rate,
                f"delivered_share.{name}": tally.trained_groups / groups,
                f"delivered_token_share.{name}": tally.trained_tokens / tokens,
                f"target_share.{name}": self._mixture.weights_D[domain],
                f"stale.{name}": float(tally.stale),
                f"failed.{name}": float(tally.failed),
                f"quarantined.{name}": float(self._orders[domain].num_quarantined),
            }
        return numbers

    # --- which domain may be asked, and which is ----------------------------------------------------

    def _open(self) -> list[int]:
        """Domains that may be dispatched now."""
        if self._max_lag == 0 and self._taken > 0:
            return []
        out = sum(tally.outstanding for tally in self._tallies)
        load = sum(tally.expected for tally in self._tallies)
        cap = self._groups_per_step * (1.0 + self._max_lag)
        if self._max_lag > 0 and load + self._taken < cap and out + self._taken < RAW_BOUND * cap:
            return self._mixture.wanted
        # The floor rule: what the next batch needs may always be asked. It counts every pending group as if
        # it were kept, so it never overshoots, and it makes progress certain: see the waiting rules above.
        if self._settings.compose == "fifo":
            return self._mixture.wanted if out < self._groups_per_step else []
        return [
            domain
            for domain in self._mixture.wanted
            if self._tallies[domain].outstanding < self._mixture.quotas_D[domain]
        ]

    def _largest_deficit(self, open_domains: Sequence[int]) -> int:
        """Owed share of everything held, with one group more, minus what is held; first domain on ties."""
        held_D = [0.0] * len(self._names)
        for domain in self._mixture.wanted:
            tally = self._tallies[domain]
            held_D[domain] = tally.expected if self._mixture.counts_trained else tally.pending
        size = sum(held_D) + 1.0
        debt_D, shares_D = self._mixture.debt_D, self._mixture.shares_D
        return max(open_domains, key=lambda domain: debt_D[domain] + shares_D[domain] * size - held_D[domain])

    def _counts(self, *, force: bool) -> tuple[list[int] | None, bool]:
        """Groups to take from each domain (None: wait), and whether the batch falls short of its plan."""
        ready_D = [tally.ready for tally in self._tallies]
        num_ready, size = sum(map(len, ready_D)), self._groups_per_step
        if self._settings.compose == "fifo":
            short = num_ready < size
            counts_D = None if short and not force else oldest_counts(ready_D, size)
        else:
            counts_D = quota_counts(ready_D, self._mixture.quotas_D)
            short = counts_D is None
            if short and force:
                counts_D = makeshift_counts(ready_D, self._mixture.quotas_D, self._mixture.raw_D, size)
        return (counts_D if num_ready else None), short

    # --- upkeep -------------------------------------------------------------------------------------

    def _advance(self, version: int) -> None:
        """The trainer's version rose: drop what is too old now."""
        if version > self._version:
            self._version = version
            for domain in range(len(self._names)):
                self._drop(domain)

    def _drop(self, domain: int) -> None:
        """Drop ready groups that are too old, or all if the domain left; ask their problems again."""
        oldest = self._version - self._max_age if self._mixture.weights_D[domain] > 0 else float("inf")
        for ticket in self._tallies[domain].drop_before(oldest):
            self._tallies[domain].stale += 1
            self._orders[domain].put_back(ticket)
            self._dropped.append(ticket.group_id)

    def _normalised(self, ratios: Mapping[str, float]) -> list[float]:
        """Ratios in our order with sum 1."""
        weights_D = [float(ratios[name]) for name in self._names]
        total = sum(weights_D)
        if min(weights_D, default=0.0) < 0 or not total > 0:
            raise InputError(f"domain ratios must be >= 0 with a positive sum, found {dict(ratios)}")
        for name, weight, has_problems in zip(self._names, weights_D, self._has_problems_D, strict=True):
            if weight > 0 and not has_problems:
                raise InputError(f"domain {name} has ratio {ratios[name]:g} but no problems to train on")
        return [weight / total for weight in weights_D]
