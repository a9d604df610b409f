"""What does a GPU hold when this model trains at this layout, and how much KV cache has a server room for?

    ModelShape + Train ---------> StageMemory, one for each pipeline stage
    ModelShape + LocalServers --> ServerMemory

Closed forms in bytes, without torch. Derivations, assumptions and what is left out: docs/memory.md.
"""

import msgspec

from apriel_mcore.bridge.shape import ModelShape
from apriel_mcore.config.schema import (
    BlockwiseFp8,
    Cluster,
    EngineFp8,
    LocalServers,
    Mxfp8,
    Parallel,
    Train,
    keeps_params,
)
from apriel_mcore.config.schema.publish import Weights
from apriel_mcore.fp8 import linear_weights, num_fp8_layers

GB = 10**9
GIB = 2**30

RESERVED_BYTES = 4 * GIB
"""Of each GPU, for what no formula here counts: CUDA context, NCCL buffers, CUDA graphs, allocator gaps."""
HEAD_CHUNK_BYTES = 128 * 2**20
"""float32 logits of one chunk of tokens: CHUNK_BYTES of mcore/logprobs.py."""
HEAD_KEEP_BYTES = 512 * 2**20
"""Softmax outputs that wait for backward: KEEP_BYTES of mcore/logprobs.py."""

_FP32 = 4
_SCALED_32 = (BlockwiseFp8, Mxfp8)
"""Kinds of FP8 with a scale for few numbers: of activations, a float32 for 128 or a byte for 32."""
_WIDTH = {"bf16": 2, "fp32": 4, "bfloat16": 2, "float32": 4}
"""Bytes of one number, by precision of the trainer or dtype of a server."""


class StageMemory(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes on each GPU of one pipeline stage at its fullest moment, when a backward pass begins."""

    stage: int
    num_layers: int
    num_fp8_layers: int
    num_parameters: int
    weights: int
    """And, where layers compute in FP8, their weights in FP8, once along rows and once along columns."""
    gradients: int
    """float32 buffers that gradients of all rows are added up in."""
    optimizer: int
    """Adam's moments, and float32 masters of bf16 weights."""
    activations: int
    """What the rows in flight keep for their backward pass."""
    working: int
    """The largest temporaries: of the head, or of backward through one layer."""
    publish_copy: int
    """FP8 copy of the projections that `publish.weights` sends, which stays from version to version."""

    @property
    def total(self) -> int:
        """All of it; RESERVED_BYTES must still fit beside it."""
        trained = self.weights + self.gradients + self.optimizer
        return trained + self.activations + self.working + self.publish_copy


class ServerMemory(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes on each GPU of one rollout server."""

    weights: int
    kv_cache: int
    """Negative where the weights alone are too large."""
    bytes_per_token: int
    """Of KV cache, on one GPU."""

    @property
    def tokens(self) -> int:
        """Tokens whose keys and values the server holds at once."""
        return max(0, self.kv_cache) // self.bytes_per_token


def training_memory(
    shape: ModelShape, train: Train, *, num_micro_batches: int, weights_in: Weights
) -> list[StageMemory]:
    """Of every pipeline stage; `num_micro_batches` bounds how many rows are in flight, and servers get
    `weights_in` this precision."""
    stages = range(train.parallel.pipeline)
    return [_stage_memory(shape, train, stage, num_micro_batches, weights_in) for stage in stages]


def server_memory(
    shape: ModelShape, servers: LocalServers, cluster: Cluster, weights_in: Weights
) -> ServerMemory:
    """Of a vLLM server on GPUs of `cluster`, which computes with `weights_in` this precision."""
    width = _WIDTH[servers.dtype]
    layers = shape.num_layers * _layer_parameters(shape, servers.tensor)
    ends = _embedding_parameters(shape, servers.tensor) * (1 if shape.tied else 2) + shape.hidden_size
    weights = width * (layers + ends)
    if weights_in != "as_trained":  # scales are not counted: 4 bytes for 16,384 weights
        weights -= (width - 1) * shape.num_layers * _projection_parameters(shape, servers.tensor)
    if servers.kv_cache_gib == "auto":
        share = int(servers.gpu_memory_utilization * cluster.gpu_memory_gb * GB)
        kv_cache = share - weights - RESERVED_BYTES
    else:
        kv_cache = int(servers.kv_cache_gib * GIB)
    keys_and_values = 2 * _kv_channels(shape, servers.tensor)
    return ServerMemory(
        weights=weights, kv_cache=kv_cache, bytes_per_token=width * shape.num_layers * keys_and_values
    )


def parameters_on(shape: ModelShape, parallel: Parallel, stage: int) -> int:
    """Weights of one GPU of a pipeline stage, vocabulary padding included.

    A tied head is the first stage's embedding where both are on one GPU, and a copy of it otherwise.
    """
    num_layers = shape.num_layers // parallel.pipeline
    count = num_layers * _layer_parameters(shape, parallel.tensor)
    first, last = stage == 0, stage == parallel.pipeline - 1
    if first:
        count += _embedding_parameters(shape, parallel.tensor)
    if last:
        count += shape.hidden_size  # final norm
    if last and not (first and shape.tied):
        count += _embedding_parameters(shape, parallel.tensor)
    return count


def layers_in_flight(shape: ModelShape, parallel: Parallel, stage: int, num_micro_batches: int) -> int:
    """Layers times rows whose activations a stage keeps at once, under Megatron's 1F1B schedules.

    Stage r of p starts p - r rows before the first backward pass; interleaved, with v chunks a stage,
    2(p - r - 1) + (v - 1)p + 1 chunks.
    """
    p, v = parallel.pipeline, parallel.virtual_pipeline
    chunks = p - stage if v == 1 else 2 * (p - stage - 1) + (v - 1) * p + 1
    return min(chunks, v * num_micro_batches) * (shape.num_layers // (p * v))


def kept_per_token(shape: ModelShape, train: Train, *, in_fp8: bool) -> int:
    """Bytes that one layer keeps of one token of its context rank until backward (recompute: as set)."""
    parallel, width = train.parallel, _WIDTH[train.precision]
    hidden = width * shape.hidden_size // _sequence_ranks(parallel)
    attention, feed_forward = _attention_kept(shape, train, in_fp8), _feed_forward_kept(shape, train, in_fp8)
    if train.recompute == "full":
        return hidden  # the layer's input
    if train.recompute == "selective":
        return hidden + attention + hidden  # the inputs of both parts, and what attention keeps
    return hidden + attention + hidden + feed_forward


def _attention_kept(shape: ModelShape, train: Train, in_fp8: bool) -> int:
    """Norm output, q, k, v, attention output, and the log of the softmax normaliser in float32.

    An FP8 layer keeps the inputs of its linear layers in FP8; the attention kernel keeps its output besides.
    """
    parallel, width = train.parallel, _WIDTH[train.precision]
    hidden = shape.hidden_size // _sequence_ranks(parallel)
    queries = shape.num_heads * shape.head_dim // parallel.tensor
    keys = _kv_channels(shape, parallel.tensor)
    normaliser = _FP32 * shape.num_heads // parallel.tensor
    core = width * (2 * queries + 2 * keys) + normaliser
    return core + (_fp8_bytes(hidden + queries, train) if in_fp8 else width * hidden)


def _feed_forward_kept(shape: ModelShape, train: Train, in_fp8: bool) -> int:
    """Norm output, gate and up, and their product. The first and the last are inputs of linear layers."""
    parallel, width = train.parallel, _WIDTH[train.precision]
    hidden, ffn = shape.hidden_size // _sequence_ranks(parallel), shape.ffn_size // parallel.tensor
    inputs = _fp8_bytes(hidden + ffn, train) if in_fp8 else width * (hidden + ffn)
    return inputs + width * 2 * ffn


def _fp8_bytes(count: int, train: Train) -> int:
    """Of numbers in FP8 with their scales."""
    return count + (-(-count // 32) if isinstance(train.fp8, _SCALED_32) else 0)


def _stage_memory(
    shape: ModelShape, train: Train, stage: int, num_micro_batches: int, weights_in: Weights
) -> StageMemory:
    parallel, width = train.parallel, _WIDTH[train.precision]
    count = parameters_on(shape, parallel, stage)
    row = -(-train.seq_len // parallel.context)
    in_flight = layers_in_flight(shape, parallel, stage, num_micro_batches)
    num_layers = shape.num_layers // parallel.pipeline
    in_fp8 = num_fp8_layers(shape, train, stage) if isinstance(train.fp8, EngineFp8) else 0
    kept = in_fp8 * kept_per_token(shape, train, in_fp8=True)
    kept += (num_layers - in_fp8) * kept_per_token(shape, train, in_fp8=False)
    activations = -(-in_flight * kept // num_layers) * row
    working = _layer_working(shape, train, row)
    if stage == parallel.pipeline - 1:
        activations += _head_kept(shape, train, row)
        working = max(working, _head_working(shape, train, row))
    return StageMemory(
        stage=stage,
        num_layers=num_layers,
        num_fp8_layers=in_fp8,
        num_parameters=count,
        weights=width * count + in_fp8 * _fp8_weight_bytes(shape, train),
        gradients=_FP32 * count,
        optimizer=_optimizer_bytes(count, train),
        activations=activations,
        working=working,
        publish_copy=num_layers * _fp8_copy_bytes(shape, train.parallel, weights_in),
    )


def _fp8_copy_bytes(shape: ModelShape, parallel: Parallel, weights_in: Weights) -> int:
    """Of one layer, a byte a number; the table of scales is not counted: 4 bytes for 16,384 of them."""
    return 0 if weights_in == "as_trained" else _projection_parameters(shape, parallel.tensor)


def _fp8_weight_bytes(shape: ModelShape, train: Train) -> int:
    """What FP8 adds to the weights of one layer: both ways of its linear layers' weights, which stay from row
    to row, less what is then not kept in bfloat16."""
    count = linear_weights(shape, train.parallel.tensor)
    both_ways = 2 * (count if not isinstance(train.fp8, Mxfp8) else _fp8_bytes(count, train))
    return both_ways - (_WIDTH[train.precision] * count if keeps_params(train.fp8) else 0)


def _optimizer_bytes(num_parameters: int, train: Train) -> int:
    """The distributed optimizer shares them out over the ranks that hold the same weights."""
    parallel = train.parallel
    numbers = 3 if train.precision == "bf16" else 2
    replicas = parallel.data * parallel.context if parallel.distributed_optimizer else 1
    return -(-_FP32 * numbers * num_parameters // replicas)


def _layer_working(shape: ModelShape, train: Train, row: int) -> int:
    """Backward through the first linear layer of the feed-forward part, the widest.

    Its output's gradient, its input gathered from the sequence-parallel ranks, the gradient of that and of
    the residual, and the weight's gradient before it is added to the buffer. A recomputed part is there too.
    """
    tensor, width = train.parallel.tensor, _WIDTH[train.precision]
    activations = row * width * (2 * shape.ffn_size // tensor + 3 * shape.hidden_size)
    in_fp8 = isinstance(train.fp8, EngineFp8)
    if in_fp8:  # the gradient and the gathered input, in FP8 both ways
        activations += 2 * row * _fp8_bytes(2 * shape.ffn_size // tensor + shape.hidden_size, train)
    weight = width * 2 * shape.ffn_size * shape.hidden_size // tensor
    recomputed = {
        "none": 0,
        "selective": _feed_forward_kept(shape, train, False),
        "full": _attention_kept(shape, train, False) + _feed_forward_kept(shape, train, False),
    }
    return activations + weight + row * recomputed[train.recompute]


def _head_kept(shape: ModelShape, train: Train, row: int) -> int:
    """Input of the final norm, hidden states of the scored positions (at most the row, whole on each tensor
    rank), and their softmax, which rows with few scored positions keep (mcore/logprobs.py)."""
    parallel, width = train.parallel, _WIDTH[train.precision]
    states = row * width * (shape.hidden_size // _sequence_ranks(parallel) + shape.hidden_size)
    return states + min(HEAD_KEEP_BYTES, _softmax_bytes(shape, train, row))


def _head_working(shape: ModelShape, train: Train, row: int) -> int:
    """The head in float32, its gradient in float32 and in the weight's precision, the gradient of the
    hidden states, and a chunk of logits with their exponentials."""
    width = _WIDTH[train.precision]
    rows = _embedding_parameters(shape, train.parallel.tensor)
    copies = 2 * _FP32 + width if width < _FP32 else _FP32
    chunk = min(HEAD_CHUNK_BYTES, _softmax_bytes(shape, train, row))
    return copies * rows + row * width * shape.hidden_size + 2 * chunk


def _softmax_bytes(shape: ModelShape, train: Train, row: int) -> int:
    """float32, of all tokens of a row over this rank's share of the vocabulary."""
    return row * _FP32 * (shape.padded_vocab(train.parallel.tensor) // train.parallel.tensor)


def _layer_parameters(shape: ModelShape, tensor: int) -> int:
    """Of one layer on one of `tensor` ranks; norms are whole on each."""
    queries, keys = shape.num_heads * shape.head_dim // tensor, _kv_channels(shape, tensor)
    others = shape.qkv_bias * (queries + 2 * keys) + shape.qk_norm * 2 * shape.head_dim
    return _projection_parameters(shape, tensor) + others + 2 * shape.hidden_size


def _projection_parameters(shape: ModelShape, tensor: int) -> int:
    """The weights of attention and MLP among them: those that may be in FP8."""
    queries, keys = shape.num_heads * shape.head_dim // tensor, _kv_channels(shape, tensor)
    return 2 * shape.hidden_size * (queries + keys) + 3 * shape.hidden_size * shape.ffn_size // tensor


def _embedding_parameters(shape: ModelShape, tensor: int) -> int:
    return shape.padded_vocab(tensor) // tensor * shape.hidden_size


def _sequence_ranks(parallel: Parallel) -> int:
    """Tensor ranks that share out the tokens outside attention and feed-forward."""
    return parallel.tensor if parallel.sequence else 1


def _kv_channels(shape: ModelShape, tensor: int) -> int:
    """Of the keys on one rank; a server with more ranks than groups holds copies of them."""
    return max(1, shape.num_kv_heads // tensor) * shape.head_dim
