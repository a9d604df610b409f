"""How many ready groups of each domain go into the next batch?

Pure functions of what is ready (heaps of Ready, one per domain) and of the mixture's plan.
"""

import heapq
from collections.abc import Sequence

from apriel_mcore.data.tally import Ready


def quota_counts(ready_D: Sequence[Sequence[Ready]], quotas_D: Sequence[int]) -> list[int] | None:
    """The quotas; None while a domain is short of its own."""
    enough = all(len(ready) >= quota for ready, quota in zip(ready_D, quotas_D, strict=True))
    return list(quotas_D) if enough else None


def oldest_counts(ready_D: Sequence[Sequence[Ready]], batch_groups: int) -> list[int]:
    """How the oldest ready groups, one batch of them at most, are spread over the domains."""
    ages = [(*entry[:2], domain) for domain, ready in enumerate(ready_D) for entry in ready]
    counts_D = [0] * len(ready_D)
    for _, _, domain in heapq.nsmallest(batch_groups, ages):
        counts_D[domain] += 1
    return counts_D


def makeshift_counts(
    ready_D: Sequence[Sequence[Ready]], quotas_D: Sequence[int], raw_D: Sequence[float], batch_groups: int
) -> list[int]:
    """Quotas as far as they go, then whichever ready domain is owed most, up to a whole batch."""
    counts_D = [min(len(ready), quota) for ready, quota in zip(ready_D, quotas_D, strict=True)]
    places = min(batch_groups, sum(len(ready) for ready in ready_D)) - sum(counts_D)
    for _ in range(places):
        spare = [domain for domain, ready in enumerate(ready_D) if len(ready) > counts_D[domain]]
        counts_D[max(spare, key=lambda domain: raw_D[domain] - counts_D[domain])] += 1
    return counts_D
