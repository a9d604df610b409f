"""How many groups of the next batch belong to each domain?

    ratios w, tokens per group m -> shares v ;  carry -> debt ;  v, debt -> raw -> quotas (they sum to Bg)

Lists hold one value per domain, in recipe order (suffix _D). `v` is a share of the batch in groups; a `carry`
is what a domain is owed so far, in the sampler's unit, and sums to 0.
"""

from collections.abc import Sequence


def token_shares(weights_D: Sequence[float], tokens_per_group_D: Sequence[float]) -> list[float]:
    """Shares in groups that give token shares `weights_D`: v is proportional to w / m.

    A domain whose mean is unknown (0) is taken to be like the mean of the known ones.
    """
    per_group_D = _filled(tokens_per_group_D)
    parts_D = [weight / tokens for weight, tokens in zip(weights_D, per_group_D, strict=True)]
    total = sum(parts_D)
    return [part / total for part in parts_D]


def token_debt(
    carry_D: Sequence[float],
    tokens_per_group_D: Sequence[float],
    shares_D: Sequence[float],
    limits_D: Sequence[float],
) -> list[float]:
    """A carry in tokens as a debt in groups, each within its limit before they are made to sum to 0."""
    per_group_D = _filled(tokens_per_group_D)
    debt_D = [carry / tokens for carry, tokens in zip(carry_D, per_group_D, strict=True)]
    return recentred(clamped(debt_D, limits_D), shares_D)


def recentred(values_D: Sequence[float], shares_D: Sequence[float]) -> list[float]:
    """Values shifted by a multiple of the shares so that they sum to 0; 0 where the share is 0."""
    wanted_D = [value if share > 0 else 0.0 for value, share in zip(values_D, shares_D, strict=True)]
    excess = sum(wanted_D)
    return [value - share * excess for value, share in zip(wanted_D, shares_D, strict=True)]


def clamped(values_D: Sequence[float], limits_D: Sequence[float]) -> list[float]:
    """Each value within plus or minus its limit."""
    return [min(limit, max(-limit, value)) for value, limit in zip(values_D, limits_D, strict=True)]


def quotas(raw_D: Sequence[float], wanted: Sequence[int], batch_groups: int) -> list[int]:
    """Largest-remainder rounding of `raw_D` over the wanted domains; sums to `batch_groups`.

    Handing out one place at a time to the largest `raw - quota` equals the textbook method, and stays right
    for tiny weights, where rounding a negative raw value down would give a negative quota.
    """
    quotas_D = [0] * len(raw_D)
    left_D = list(raw_D)
    for _ in range(batch_groups):
        domain = max(wanted, key=left_D.__getitem__)
        quotas_D[domain] += 1
        left_D[domain] -= 1.0
    return quotas_D


def _filled(tokens_per_group_D: Sequence[float]) -> list[float]:
    known = [tokens for tokens in tokens_per_group_D if tokens > 0]
    stand_in = sum(known) / len(known) if known else 1.0
    return [tokens if tokens > 0 else stand_in for tokens in tokens_per_group_D]
