"""Are all weights numbers? Asked before a version leaves the trainer, for servers would answer with it.

One sum over each parameter, at the speed of memory: where an element is NaN or infinite, so is the sum. A sum
may overflow without that, so elements are looked at where it is not finite.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from apriel_mcore.bridge.plan import Copy
from apriel_mcore.bridge.reshard import Chunks


@torch.no_grad()
def not_finite(chunks: Chunks, copies: Sequence[Copy]) -> list[str]:
    """Hugging Face names of the tensors among `copies` that hold NaN or infinity, sorted.

    FP8 tensors are passed over: bridge/quantise.py has looked at what they were made from.
    """
    parameters = list(dict.fromkeys((copy.chunk, copy.parameter) for copy in copies))
    if not parameters:
        return []
    sums = torch.stack([_sum(chunks[chunk][name]) for chunk, name in parameters])  # read back together
    finite = sums.isfinite().tolist()
    suspects = {entry for entry, is_finite in zip(parameters, finite, strict=True) if not is_finite}
    boxes = (
        (copy.hf, chunks[copy.chunk][copy.parameter][tuple(slice(*span) for span in copy.shard)])
        for copy in copies
        if (copy.chunk, copy.parameter) in suspects
    )
    return sorted({name for name, box in boxes if not box.isfinite().all()})


def _sum(parameter: Tensor) -> Tensor:
    if parameter.element_size() == 1:
        return torch.zeros((), device=parameter.device)
    return parameter.sum().float()
