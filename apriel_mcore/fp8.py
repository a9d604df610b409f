"""Which layers compute in FP8, which of their weights, and does the model's shape allow it?

Transformer Engine computes the four linear layers of a transformer layer in FP8. Without torch.
"""

from apriel_mcore.bridge.shape import ModelShape
from apriel_mcore.config.schema import EngineFp8, Fp8, NoFp8, Train, bf16_layers
from apriel_mcore.errors import ConfigError


def kind_of(fp8: Fp8) -> str:
    """`train.fp8.kind`."""
    return str(type(fp8).__struct_config__.tag)  # pyright: ignore[reportAttributeAccessIssue]


def is_fp8_layer(shape: ModelShape, fp8: Fp8, layer: int) -> bool:
    """Of a layer counted from 0 over the whole model."""
    first, last = bf16_layers(fp8)
    return not isinstance(fp8, NoFp8) and first <= layer < shape.num_layers - last


def num_fp8_layers(shape: ModelShape, train: Train, stage: int) -> int:
    """Of a pipeline stage, chunks dealt out like Megatron's: chunk v of stage r is number vp + r."""
    parallel = train.parallel
    size = shape.num_layers // (parallel.pipeline * parallel.virtual_pipeline)
    starts = [(v * parallel.pipeline + stage) * size for v in range(parallel.virtual_pipeline)]
    layers = [start + offset for start in starts for offset in range(size)]
    return sum(is_fp8_layer(shape, train.fp8, layer) for layer in layers)


def linear_weights(shape: ModelShape, tensor: int) -> int:
    """Numbers in the linear layers' weights of one layer on one of `tensor` ranks."""
    return sum(rows * columns for rows, columns in _sizes(shape, tensor).values())


def check_shape(shape: ModelShape, train: Train) -> None:
    """ConfigError where no layer would be left for FP8, or a weight has sizes that it does not take."""
    found = misfit(shape, train.fp8, tensor=train.parallel.tensor, pipeline=train.parallel.pipeline)
    if found:
        raise ConfigError(found)


def misfit(shape: ModelShape, fp8: Fp8, *, tensor: int, pipeline: int) -> str:
    """Why a layout cannot compute this model in FP8, and what to change; empty where it can."""
    first, last = bf16_layers(fp8)
    if not isinstance(fp8, NoFp8) and first + last >= shape.num_layers:
        return (
            f"train.fp8.bf16_first = {first} and bf16_last = {last} leave none of {shape.num_layers} layers "
            'for FP8; lower them, or set train.fp8.kind = "off"'
        )
    most = shape.num_layers // pipeline
    if isinstance(fp8, EngineFp8) and max(first, last) > most:
        return (
            f"train.fp8.bf16_first = {first} or bf16_last = {last} exceeds the {most} layers of a pipeline "
            "stage, which Megatron-Core refuses; lower it"
        )
    for name, sizes in _sizes(shape, tensor).items():
        if any(size % fp8.ALIGNMENT for size in sizes):
            return (
                f'train.fp8.kind = "{kind_of(fp8)}" takes weights whose sizes are multiples of '
                f"{fp8.ALIGNMENT}, and {name} is {sizes[0]} x {sizes[1]} on each of "
                f"train.parallel.tensor = {tensor} ranks; choose another kind or fewer tensor ranks"
            )
    return ""


def _sizes(shape: ModelShape, tensor: int) -> dict[str, tuple[int, int]]:
    """Megatron's linear layers as one tensor rank holds them: outputs x inputs."""
    hidden, ffn = shape.hidden_size, shape.ffn_size // tensor
    queries, keys = shape.num_heads * shape.head_dim // tensor, shape.num_kv_heads * shape.head_dim // tensor
    return {
        "linear_qkv": (queries + 2 * keys, hidden),
        "linear_proj": (hidden, queries),
        "linear_fc1": (2 * ffn, hidden),
        "linear_fc2": (hidden, ffn),
    }
