"""How long is one optimizer step of Megatron at this layout?

    Decoder + Layout + Load + Profile --> StepTime, split by what it is spent on

Formulas and what they leave out: docs/planning.md. Every GPU of the slowest pipeline stage is followed.
"""

import msgspec

from apriel_mcore.planning.flops import Decoder, elementwise_bytes, head_bytes
from apriel_mcore.planning.hardware import Profile

_BF16 = 2
ADAM_BYTES = 30
"""Read and written for one parameter by an optimizer step: gradient, master, two moments, weight."""


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """Ranks, and how the trainer computes."""

    tensor: int = 1
    pipeline: int = 1
    virtual: int = 1
    context: int = 1
    data: int = 1
    fp8: bool = False
    fp32_head: bool = False
    """The head's products in float32 without TF32, as this program's are; published runs use bf16."""
    recompute: float = 0.0
    """Share of a layer's forward matrix products that backward repeats."""
    overlaps_tensor: bool = False
    """Tensor-parallel traffic overlapped with matrix products; this program does not."""
    overlaps_data: bool = False

    @property
    def world_size(self) -> int:
        """GPUs."""
        return self.tensor * self.pipeline * self.context * self.data


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What one data rank trains in a step."""

    micro_batches: int
    tokens: float
    """Of one micro-batch, before context ranks share it."""
    context: float
    """Mean over tokens of the length of the sequence that a token stands in: sum L^2 / sum L."""


class StepTime(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds; their sum is the step."""

    matmul: float
    attention: float
    elementwise: float
    head: float
    tensor: float
    context: float
    bubble: float
    data: float
    optimizer: float

    @property
    def total(self) -> float:
        """The step."""
        return sum(msgspec.structs.astuple(self))


def step_time(decoder: Decoder, layout: Layout, load: Load, profile: Profile) -> StepTime:
    """Of the whole step, on the last pipeline stage: it has the head, and the others wait for it."""
    layers = decoder.num_layers / layout.pipeline
    tokens = load.tokens / layout.context
    rows = load.micro_batches
    matmul = rows * layers * tokens * _matmul(decoder, layout, profile)
    attention = rows * layers * tokens * _attention(decoder, layout, load, profile)
    elementwise = (
        rows
        * layers
        * tokens
        * elementwise_bytes(decoder, fp8=layout.fp8)
        / layout.tensor
        / _bandwidth(profile)
    )
    head = rows * tokens * _head(decoder, layout, profile)
    tensor = rows * layers * tokens * _tensor(decoder, layout, profile)
    ring = rows * layers * tokens * _ring(decoder, layout, profile)
    hidden = max(0.0, ring - attention)
    busy = matmul + attention + elementwise + head + tensor + hidden
    return StepTime(
        matmul=matmul,
        attention=attention,
        elementwise=elementwise,
        head=head,
        tensor=tensor,
        context=hidden,
        bubble=busy / rows * (layout.pipeline - 1) / layout.virtual,
        data=_data(decoder, layout, profile, overlapped=busy / rows),
        optimizer=_local_parameters(decoder, layout)
        / (layout.data * layout.context)
        * ADAM_BYTES
        / _bandwidth(profile),
    )


def _bandwidth(profile: Profile) -> float:
    return profile.device.memory_gb_s * 1e9 * profile.efficiency.memory


def _local_parameters(decoder: Decoder, layout: Layout) -> float:
    return decoder.num_parameters / (layout.tensor * layout.pipeline)


def _matmul(decoder: Decoder, layout: Layout, profile: Profile) -> float:
    """Seconds of one layer's matrix products for one token: forward, and twice that backward."""
    eff, device = profile.efficiency, profile.device
    rate = device.fp8_tflops * eff.gemm_fp8 if layout.fp8 else device.bf16_tflops * eff.gemm_bf16
    return 2 * (3 + layout.recompute) * decoder.layer_weights / layout.tensor / (rate * 1e12)


def _attention(decoder: Decoder, layout: Layout, load: Load, profile: Profile) -> float:
    """Always in bf16. Backward computes the scores again: 2.5 times forward's FLOPs."""
    forward = decoder.attention_flops(load.context) / layout.tensor
    eff = profile.efficiency
    peak = profile.device.bf16_tflops * 1e12
    return forward / peak * (1 / eff.attention_forward + 2.5 / eff.attention_backward)


def _head(decoder: Decoder, layout: Layout, profile: Profile) -> float:
    """Seconds of the output layer and the loss for one token; never in FP8."""
    eff, device = profile.efficiency, profile.device
    rate = device.fp32_tflops * eff.gemm_fp32 if layout.fp32_head else device.bf16_tflops * eff.gemm_bf16
    products = 6 * decoder.head_weights / (rate * 1e12)
    return (products + head_bytes(decoder) / _bandwidth(profile)) / layout.tensor


def _tensor(decoder: Decoder, layout: Layout, profile: Profile) -> float:
    """Sequence parallelism: gather and scatter around attention and feed-forward, forward and backward, and
    two gathers more for the weight gradients: 10 messages of a token's hidden state."""
    if layout.tensor == 1:
        return 0.0
    exposed = profile.efficiency.tensor_exposed if layout.overlaps_tensor else 1.0
    sent = 10 * _BF16 * decoder.hidden * (layout.tensor - 1) / layout.tensor
    return exposed * sent / (profile.wires.node_gb_s * 1e9)


def _ring(decoder: Decoder, layout: Layout, profile: Profile) -> float:
    """Keys and values to every context rank, forward, and with their gradients backward: three times."""
    if layout.context == 1:
        return 0.0
    inside = layout.tensor * layout.context <= profile.wires.devices_per_node
    speed = profile.wires.node_gb_s if inside else profile.wires.network_gb_s
    return 3 * _BF16 * 2 * decoder.key / layout.tensor * (layout.context - 1) / (speed * 1e9)


def _data(decoder: Decoder, layout: Layout, profile: Profile, *, overlapped: float) -> float:
    """Gradients scattered (bf16 where published runs overlap, float32 here) and weights gathered; with
    overlap only what the first forward and the last backward pass cannot hide."""
    ranks = layout.data * layout.context
    if ranks == 1:
        return 0.0
    inside = layout.world_size <= profile.wires.devices_per_node
    speed = profile.wires.node_gb_s if inside else profile.wires.network_gb_s
    width = 2 * _BF16 if layout.overlaps_data else 3 * _BF16
    seconds = _local_parameters(decoder, layout) * width * (ranks - 1) / ranks / (speed * 1e9)
    return max(0.0, seconds - overlapped) if layout.overlaps_data else seconds
