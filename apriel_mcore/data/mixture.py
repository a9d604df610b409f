"""What is each domain owed now, and how many groups of the next batch are its?

    weights w --(unit)--> shares v          completed or trained work --> carry --> debt
    v * Bg + debt = raw --largest remainder--> quotas

The carry is the integral of what was owed minus what was granted, so a changed mixture is followed at once
and its past is not paid back. Which work moves it, and in what measure, is the sampler's unit:

    unit          counted work           moved by            measure
    groups        completed groups       observe_completed   groups
    tokens        completed groups       observe_completed   loss tokens
    kept_groups   groups put in batches  observe_batch       groups
    kept_tokens   groups put in batches  observe_batch       loss tokens
"""

from collections.abc import Sequence

import msgspec

from apriel_mcore.config import schema
from apriel_mcore.data import targets

TOKENS_STEP = 0.02
"""Weight of a new group in the running mean of tokens."""
TOKEN_DEBT_LIMIT = 0.25
"""Part of a domain's share by which token debts may move its quota in one batch: lengths are noisy."""


class MixtureState(msgspec.Struct, frozen=True, kw_only=True):
    """What a checkpoint holds of a Mixture; lists are in recipe order."""

    weights: list[float]
    carry: list[float]
    tokens_per_group: list[float]
    raw: list[float]
    quotas: list[int]


class Mixture:
    """Targets, debts and quotas of all domains; `weights_D` sum to 1."""

    def __init__(self, weights_D: Sequence[float], *, settings: schema.Sampler, groups_per_step: int) -> None:
        self.counts_trained = settings.unit in ("kept_groups", "kept_tokens")
        """The unit is trained work; otherwise it is completed work."""
        self._counts_tokens = settings.unit in ("tokens", "kept_tokens")
        self._first_come = settings.compose == "fifo"
        self._groups_per_step = groups_per_step
        self.weights_D = list(weights_D)
        self._carry_D = [0.0] * len(weights_D)
        self._tokens_per_group_D = [0.0] * len(weights_D)
        self._retarget()
        self.plan()

    def observe_completed(self, domain: int, loss_tokens: int, *, kept: bool) -> None:
        """A group completed, kept or filtered."""
        if self._counts_tokens and (kept or not self.counts_trained):
            self._learn_tokens(domain, float(max(1, loss_tokens)))
        if not self.counts_trained:
            granted_D = [0.0] * len(self.weights_D)
            granted_D[domain] = float(loss_tokens) if self._counts_tokens else 1.0
            self._grant(granted_D)
        if self._counts_tokens or not self.counts_trained:
            self._retarget()

    def observe_batch(self, groups_D: Sequence[int], tokens_D: Sequence[int], *, short: bool) -> None:
        """A batch was composed of so many groups and loss tokens of each domain; plans the next."""
        if self.counts_trained and self._counts_tokens:
            self._grant([float(tokens) for tokens in tokens_D])
        elif self.counts_trained:
            self._grant_groups(groups_D, short=short)
        self._retarget()
        self.plan()

    def change(self, weights_D: Sequence[float]) -> None:
        """New targets. A domain that leaves takes its debt with it; first-come mixtures start afresh."""
        self.weights_D = list(weights_D)
        if self._first_come:
            self._carry_D = [0.0] * len(self.weights_D)
        self._carry_D = targets.recentred(self._carry_D, self.weights_D)
        self._retarget()
        self.plan()

    def plan(self) -> None:
        """Fix the quotas of the next batch; they sum to its size."""
        size = self._groups_per_step
        self.raw_D = [share * size + debt for share, debt in zip(self.shares_D, self.debt_D, strict=True)]
        self.quotas_D = targets.quotas(self.raw_D, self.wanted, size)

    def state(self) -> MixtureState:
        """For the checkpoint."""
        return MixtureState(
            weights=self.weights_D,
            carry=self._carry_D,
            tokens_per_group=self._tokens_per_group_D,
            raw=self.raw_D,
            quotas=self.quotas_D,
        )

    def load(self, state: MixtureState) -> None:
        """Continue where the state was saved."""
        self.weights_D, self._carry_D = list(state.weights), list(state.carry)
        self._tokens_per_group_D = list(state.tokens_per_group)
        self._retarget()
        self.raw_D, self.quotas_D = list(state.raw), list(state.quotas)

    def _retarget(self) -> None:
        """Shares and debt, both in groups, after weights, carry or mean tokens changed."""
        self.wanted = [domain for domain, weight in enumerate(self.weights_D) if weight > 0]
        self.shares_D, self.debt_D = self.weights_D, self._carry_D
        if self._counts_tokens:
            tokens_D = self._tokens_per_group_D
            self.shares_D = targets.token_shares(self.weights_D, tokens_D)
            limits_D = self._token_debt_limits()
            self.debt_D = targets.token_debt(self._carry_D, tokens_D, self.shares_D, limits_D)

    def _token_debt_limits(self) -> list[float]:
        """First-come batches have no quotas: there the debt alone must make up for slow domains."""
        size = self._groups_per_step
        if self._first_come:
            return [float(size)] * len(self.shares_D)
        return [max(1.0, TOKEN_DEBT_LIMIT * share * size) for share in self.shares_D]

    def _learn_tokens(self, domain: int, tokens: float) -> None:
        mean = self._tokens_per_group_D[domain]
        self._tokens_per_group_D[domain] = mean + TOKENS_STEP * (tokens - mean) if mean else tokens

    def _grant(self, granted_D: Sequence[float]) -> None:
        """Every domain was owed its part of the whole, and got what it got."""
        total = sum(granted_D)
        carried = zip(self._carry_D, self.weights_D, granted_D, strict=True)
        self._carry_D = [carry + weight * total - granted for carry, weight, granted in carried]

    def _grant_groups(self, groups_D: Sequence[int], *, short: bool) -> None:
        """As `_grant`, bounded: a place that nobody could fill is not owed for ever."""
        size = self._groups_per_step
        if self._first_come:
            self._grant([float(groups) for groups in groups_D])
            limits_D = [float(size)] * len(self.weights_D)
        else:
            self._carry_D = [raw - groups for raw, groups in zip(self.raw_D, groups_D, strict=True)]
            limits_D = [max(1.0, share * size) if short else float(size) for share in self.shares_D]
        self._carry_D = targets.recentred(targets.clamped(self._carry_D, limits_D), self.weights_D)
