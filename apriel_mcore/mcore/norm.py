"""RMSNorm for Megatron's local layer spec: in the parameters' dtype, and sequence parallel.

Megatron's own fallback keeps float32 weights in a bf16 model (its checkpoint then refuses them) and
refuses sequence parallelism. Root mean square normalisation is arXiv 1910.07467, equation 4.
"""

import torch
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """y = x / sqrt(mean(x^2) + eps) * weight over the last dimension."""

    def __init__(
        self,
        config: TransformerConfig,
        hidden_size: int,
        eps: float = 1e-5,
        *,
        has_residual: bool = False,
        name: str | None = None,
    ) -> None:
        """The arguments that Megatron's layers pass to a norm; `has_residual` and `name` are hints."""
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(hidden_size, dtype=config.params_dtype))
        # Under sequence parallelism each rank normalises other tokens: the gradients are then summed
        # over the tensor-parallel group, which Megatron does for parameters with this mark.
        self.weight.sequence_parallel = config.sequence_parallel  # pyright: ignore[reportAttributeAccessIssue]

    def forward(self, x: Tensor) -> Tensor:
        """x: [..., hidden]; the result has its shape and dtype."""
        return torch.nn.functional.rms_norm(x, (x.shape[-1],), self.weight, self.eps)
