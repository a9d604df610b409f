"""Which tokens of a packed row does a context rank hold? Transformer Engine's zigzag, per sequence.

Every sequence (padded to a multiple of 2 cp) is cut into 2 cp chunks; rank r holds chunks r and
2 cp - 1 - r of each, which balances causal work. `bounds` are a row's cu_seqlens: 0, ends of sequences.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor


def zigzag(bounds: Sequence[int], context: int, rank: int) -> Tensor:
    """Positions of a row (cu_seqlens `bounds`) that context rank `rank` of `context` holds, int64 [t]."""
    if context == 1:
        return torch.arange(bounds[-1])
    positions = []
    for start, end in pairwise(bounds):
        chunks = torch.arange(start, end).view(2 * context, -1)
        positions += [chunks[rank], chunks[2 * context - 1 - rank]]
    return torch.cat(positions)


def zigzag_inverse(bounds: Sequence[int], context: int) -> Tensor:
    """Where each position of the row lies in the concatenation of all ranks' tokens, int64 [t * cp]."""
    return torch.cat([zigzag(bounds, context, rank) for rank in range(context)]).argsort()
