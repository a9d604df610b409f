"""What does FP8 do to a model's numbers? Linear layers whose operands are rounded to FP8, on any device.

    input, weight --round--> product in train.precision --backward--> gradient --round--> both products

This is an emulation, for machines without FP8: it rounds what Transformer Engine rounds and multiplies in
bfloat16 or float32, so it is slower than no FP8. Tensorwise: one scale a tensor, inputs and weights e4m3,
gradients e5m2. Blockwise: 128 x 128 weights, 1 x 128 inputs and gradients, all e4m3, scales powers of two, as
in DeepSeek-V3 (arXiv 2412.19437, section 3.3).

Known differences: tensor cores add up products in fewer bits; where scales are 1 x 128, Transformer Engine
rounds an operand once along its rows and once along its columns, and here the rows' rounding serves both
products; a tensorwise scale is taken over a rank's own part, there over the whole tensor group's.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from megatron.core.transformer.transformer_layer import TransformerLayer
from torch import Tensor
from torch.nn.functional import pad

BLOCK = 128

type Rounding = Callable[[Tensor], Tensor]


def round_tensorwise(x: Tensor, dtype: torch.dtype) -> Tensor:
    """The values of `x` that FP8 `dtype` keeps under one scale; shape and dtype of `x`."""
    largest = x.abs().amax().float()
    scale = torch.where(largest > 0, torch.finfo(dtype).max / largest, 1.0)
    return _rounded(x, scale, dtype)


def round_blockwise(x: Tensor, rows: int) -> Tensor:
    """The values of `x` that e4m3 keeps under a power of two for each `rows` x 128 of it, all but the
    last dimension taken as one; blocks at the edge may be smaller. Shape and dtype of `x`."""
    flat = x.reshape(-1, x.shape[-1])
    height, width = flat.shape
    padded = pad(flat, (0, -width % BLOCK, 0, -height % rows))
    blocks = padded.view(padded.shape[0] // rows, rows, padded.shape[1] // BLOCK, BLOCK)
    largest = blocks.abs().amax(dim=(1, 3), keepdim=True).float()
    room = torch.finfo(torch.float8_e4m3fn).max / largest
    scale = torch.where(largest > 0, room.log2().floor().exp2(), 1.0)
    kept = _rounded(blocks, scale, torch.float8_e4m3fn).view(padded.shape)
    return kept[:height, :width].reshape(x.shape)


def _rounded(x: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """No overflow: what `scale` lifts above the format's largest number is nearer to it than to infinity."""
    return ((x.float() * scale).to(dtype).float() / scale).to(x.dtype)


class _Forward(torch.autograd.Function):
    """Rounds a value; its gradient passes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rounding: Rounding) -> Tensor:
        return rounding(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


class _Backward(torch.autograd.Function):
    """Rounds a gradient; its value passes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rounding: Rounding) -> Tensor:
        ctx.rounding = rounding
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.rounding(gradients[0]), None


def emulate(layer: TransformerLayer, scaling: Literal["tensorwise", "blockwise"]) -> None:
    """From now on the four linear layers of `layer` take and give what FP8 would leave of their operands."""
    attention: Any = layer.self_attention
    mlp: Any = layer.mlp
    for linear in (attention.linear_qkv, attention.linear_proj, mlp.linear_fc1, mlp.linear_fc2):
        # Megatron's hook around the product alone, without the exchange between ranks.
        linear._forward_impl = _rounding_product(linear._forward_impl, _ROUNDINGS[scaling])


def _rounding_product(product: Callable[..., Tensor], roundings: "_Roundings") -> Callable[..., Tensor]:
    """`product` of rounded operands; Megatron names them, and passes more that only it understands."""

    def rounded_product(*, input: Tensor, weight: Tensor, **rest: Any) -> Tensor:
        output = product(
            input=_Forward.apply(input, roundings.of_input),
            weight=_Forward.apply(weight, roundings.of_weight),
            **rest,
        )
        return _Backward.apply(output, roundings.of_gradient)  # pyright: ignore[reportReturnType]

    return rounded_product


class _Roundings(NamedTuple):
    of_input: Rounding
    of_weight: Rounding
    of_gradient: Rounding


_ROUNDINGS = {
    "tensorwise": _Roundings(
        of_input=partial(round_tensorwise, dtype=torch.float8_e4m3fn),
        of_weight=partial(round_tensorwise, dtype=torch.float8_e4m3fn),
        of_gradient=partial(round_tensorwise, dtype=torch.float8_e5m2),
    ),
    "blockwise": _Roundings(
        of_input=partial(round_blockwise, rows=1),
        of_weight=partial(round_blockwise, rows=BLOCK),
        of_gradient=partial(round_blockwise, rows=1),
    ),
}
