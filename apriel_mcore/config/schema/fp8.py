"""Whether the linear layers of the transformer compute in FP8, and how numbers are scaled into it.

Embedding, head, norms and attention stay in `train.precision`. `ALIGNMENT` is what a matrix dimension must be
a multiple of: tokens of a row on one rank, and both sides of every weight on one rank.
"""

from typing import ClassVar, Literal

from apriel_mcore.config.schema.fields import Natural, Positive, Section


class NoFp8(Section, frozen=True, kw_only=True, tag_field="kind", tag="off"):
    """All of it in `train.precision`."""

    ALIGNMENT: ClassVar[int] = 1


class TensorwiseFp8(Section, frozen=True, kw_only=True, tag_field="kind", tag="tensorwise"):
    """One scale a tensor, from its present largest value; e4m3, gradients e5m2. Hopper and later."""

    ALIGNMENT: ClassVar[int] = 16
    params: bool = False
    """Weights of these layers are kept in FP8 too, beside the optimizer's float32 masters."""
    bf16_first: Natural = 1
    """Layers at the start that do not compute in FP8."""
    bf16_last: Natural = 1
    """Layers at the end that do not."""


class DelayedFp8(Section, frozen=True, kw_only=True, tag_field="kind", tag="delayed"):
    """One scale a tensor, from the largest values before; e4m3, gradients e5m2. Hopper and later.

    All layers compute in FP8: the history is reduced once a pass, over all of them.
    """

    ALIGNMENT: ClassVar[int] = 16
    params: bool = False
    amax_history: Positive = 1024
    """Micro-batches that are remembered."""
    amax: Literal["max", "most_recent"] = "max"
    """Which of them decides."""
    margin: Natural = 0
    """Powers of two that are left free above it."""


class BlockwiseFp8(Section, frozen=True, kw_only=True, tag_field="kind", tag="blockwise"):
    """A scale for 1 x 128 activations and 128 x 128 weights; e4m3 throughout. Hopper."""

    ALIGNMENT: ClassVar[int] = 128
    params: bool = False
    bf16_first: Natural = 1
    bf16_last: Natural = 1


class Mxfp8(Section, frozen=True, kw_only=True, tag_field="kind", tag="mxfp8"):
    """A scale for each 32 numbers; e4m3 throughout. Blackwell only."""

    ALIGNMENT: ClassVar[int] = 32
    bf16_first: Natural = 1
    bf16_last: Natural = 1


class EmulatedFp8(Section, frozen=True, kw_only=True, tag_field="kind", tag="emulated"):
    """Rounds what enters a matrix product to FP8 and computes in `train.precision`, on a CPU: shows what FP8
    does to loss and log-probs, and is slower than without. See mcore/fp8_emulation.py for what differs."""

    ALIGNMENT: ClassVar[int] = 1
    scaling: Literal["tensorwise", "blockwise"] = "tensorwise"
    bf16_first: Natural = 1
    bf16_last: Natural = 1


Fp8 = NoFp8 | TensorwiseFp8 | DelayedFp8 | BlockwiseFp8 | Mxfp8 | EmulatedFp8
"""Variants of `train.fp8`."""
EngineFp8 = TensorwiseFp8 | DelayedFp8 | BlockwiseFp8 | Mxfp8
"""Those that Transformer Engine computes."""


def keeps_params(fp8: Fp8) -> bool:
    """Weights are stored in FP8."""
    return isinstance(fp8, TensorwiseFp8 | DelayedFp8 | BlockwiseFp8) and fp8.params


def bf16_layers(fp8: Fp8) -> tuple[int, int]:
    """Layers at the start and at the end that do not compute in FP8, of a model where others do."""
    return (0, 0) if isinstance(fp8, NoFp8 | DelayedFp8) else (fp8.bf16_first, fp8.bf16_last)
