"""Which layers compute in FP8, which of their weights, and does the model's shape allow it?

Transformer Engine computes the four linear layers of a transformer layer in FP8. Without torch.
"""

from apriel_mcore.bridge.shape import ModelShape
from apriel_mcore.config.schema import EngineFp8, Fp8, NoFp8, Parallel, Train, bf16_layers
from apriel_mcore.errors import ConfigError


def kind_of(fp8: Fp8) -> str:
    """`train.fp8.kind`."""
    return str(type(fp8).__struct_config__.tag)  # pyright: ignore[reportAttributeAccessIssue]


def is_fp8_layer(shape: ModelShape, fp8: Fp8, layer: int) -> bool:
    """Of a layer counted from 0 over the whole model."""
    first, last = bf16_layers(fp8)
    return not isinstance(fp8, NoFp8) and first <= layer < shape.num_layers - last


def num_fp8_layers(shape: ModelShape, train: Train, stage: int) -> int:
    """Of a pipeline stage, whose chunks are dealt out like Megatron's: chunk v of stage r is number vp + r."""
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
    fp8 = train.fp8
    if isinstance(fp8, NoFp8):
        return
    first, last = bf16_layers(fp8)
    if first + last >= shape.num_layers:
        raise ConfigError(
            f"train.fp8.bf16_first = {first} and bf16_last = {last} leave none of {shape.num_layers} layers for "
            'FP8; lower them, or set train.fp8.kind = "off"'
        )
    most = shape.num_layers // train.parallel.pipeline
    if isinstance(fp8, EngineFp8) and max(first, last) > most:
        raise ConfigError(
            f"train.fp8: bf16_first = {first} or bf16_last = {last} exceeds the {most} layers of a pipeline "
            "stage, which Megatron-Core refuses; lower it"
        )
    _check_sizes(shape, fp8, train.parallel)


def _check_sizes(shape: ModelShape, fp8: Fp8, parallel: Parallel) -> None:
    for name, sizes in _sizes(shape, parallel.tensor).items():
        if any(size % fp8.ALIGNMENT for size in sizes):
            raise ConfigError(
                f'train.fp8.kind = "{kind_of(fp8)}" takes weights whose sizes are multiples of {fp8.ALIGNMENT}, '
                f"and {name} is {sizes[0]} x {sizes[1]} on each of train.parallel.tensor = {parallel.tensor} "
                "ranks; choose another kind or fewer tensor ranks"
            )


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
