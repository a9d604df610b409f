"""Does this run fit the GPUs that it names, and if not, which smallest change makes it fit?

    RunConfig + ModelShape --> lines that say what goes where, or a ConfigError that names the change

The numbers come from memory.py. A change is looked for among all larger layouts and stronger recomputation:
first those that need no more GPUs, of these the fewest keys, of these the cheapest in time.
"""

import json
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import msgspec

from apriel_mcore import fp8
from apriel_mcore.bridge.shape import ModelShape
from apriel_mcore.config.schema import ArenaPublish, EngineFp8, LocalServers, Parallel, RunConfig, Train
from apriel_mcore.errors import ConfigError
from apriel_mcore.memory import (
    GB,
    RESERVED_BYTES,
    StageMemory,
    server_memory,
    training_memory,
)

_RECOMPUTE = ("none", "selective", "full")
_FACTORS = (1, 2, 4, 8, 16)
"""By which the search enlarges a parallel size, or divides it in favour of another one."""
_COSTS = {
    "train.parallel.data": 0,
    "train.parallel.distributed_optimizer": 0,
    "train.parallel.sequence": 0,
    "train.parallel.context": 1,
    "train.parallel.tensor": 2,
    "train.recompute": 3,
    "train.parallel.pipeline": 4,
}
"""Rough order of what a change costs in time: sharing out what every rank holds whole costs nothing, larger
groups talk more, recomputation computes more, stages wait for each other."""


def describe(config: RunConfig, shape: ModelShape) -> list[str]:
    """One line a part: GPUs and nodes, rows, each distinct stage, servers."""
    lines = [f"gpus         {_where(config)}", f"rows         {_rows(config)}"]
    stages = _stages(config, config.train, shape)
    lines += [f"stage {memory.stage:<6} {_stage(memory)}" for memory in _distinct(stages)]
    return [*lines, f"servers      {_servers(config, shape)}"]


def require_fit(config: RunConfig, shape: ModelShape) -> None:
    """ConfigError, with the smallest change that helps, where a GPU would run out of memory."""
    _require_transport(config)
    _require_trainer(config, shape)
    if isinstance(config.rollout.servers, LocalServers):
        _require_servers(config, config.rollout.servers, shape)


def num_nodes(config: RunConfig) -> tuple[int, int]:
    """Nodes of the trainer, and nodes of the pool beside them: none where the two share one."""
    num_trainers = config.train.parallel.world_size
    if isinstance(config.publish, ArenaPublish):
        return config.cluster.nodes_of(num_trainers + _num_server_gpus(config)), 0
    return config.cluster.nodes_of(num_trainers), config.cluster.nodes_of(_num_server_gpus(config))


def _stages(config: RunConfig, train: Train, shape: ModelShape) -> list[StageMemory]:
    """With as many rows in flight as the schedule ever has: no two samples share one."""
    most = _per_data_rank(train.parallel, _num_rollouts(config))
    return training_memory(shape, train, num_micro_batches=most, weights_in=config.publish.weights)


def _num_rollouts(config: RunConfig) -> int:
    return config.train.groups_per_step * config.rollout.group_size


def _per_data_rank(parallel: Parallel, num_rows: int) -> int:
    """As data/packing.py deals them out."""
    count = max(1, -(-num_rows // parallel.data))
    multiple = parallel.pipeline if parallel.virtual_pipeline > 1 else 1
    return -(-count // multiple) * multiple


def _num_server_gpus(config: RunConfig) -> int:
    servers = config.rollout.servers
    return servers.num_devices if isinstance(servers, LocalServers) else 0


def _room(config: RunConfig) -> int:
    return int(config.cluster.gpu_memory_gb * GB) - RESERVED_BYTES


# --- what is said ----------------------------------------------------------------------------------


def _where(config: RunConfig) -> str:
    p = config.train.parallel
    trainers, servers = p.world_size, _num_server_gpus(config)
    layout = f"tensor {p.tensor} x pipeline {p.pipeline} x context {p.context} x data {p.data}"
    of_trainer, of_pool = num_nodes(config)
    nodes = f"{of_trainer} + {of_pool} node(s)" if of_pool else f"{of_trainer} node(s)"
    return f"{trainers} train ({layout}), {servers} generate: {nodes} of {config.cluster.gpus_per_node}"


def _rows(config: RunConfig) -> str:
    """Prompts, gaps in the packing and domains' own budgets are left out of the expectation."""
    num_tokens = _num_rollouts(config) * config.rollout.max_output_tokens // 2
    expected = _per_data_rank(config.train.parallel, -(-num_tokens // config.train.seq_len))
    most = _per_data_rank(config.train.parallel, _num_rollouts(config))
    return (
        f"{expected} micro-batches of {config.train.seq_len} tokens a data rank if answers take half their "
        f"budget, {most} at most; recompute {config.train.recompute}"
    )


def _distinct(memories: Sequence[StageMemory]) -> list[StageMemory]:
    """First, second and last stage: between them memory only falls."""
    return [memories[i] for i in sorted({0, min(1, len(memories) - 1), len(memories) - 1})]


def _stage(memory: StageMemory) -> str:
    sizes = {
        "weights": memory.weights,
        "gradients": memory.gradients,
        "optimizer": memory.optimizer,
        "activations": memory.activations,
        "working": memory.working,
    }
    if memory.publish_copy:
        sizes["FP8 copy to publish"] = memory.publish_copy
    listed = ", ".join(f"{name} {size / GB:.1f}" for name, size in sizes.items())
    in_fp8 = f" ({memory.num_fp8_layers} in FP8)" if memory.num_fp8_layers else ""
    return (
        f"{memory.num_layers} layers{in_fp8}, {memory.num_parameters / 1e6:.1f} M parameters a GPU; GB a "
        f"GPU: {listed}, in all {memory.total / GB:.1f}"
    )


def _servers(config: RunConfig, shape: ModelShape) -> str:
    servers = config.rollout.servers
    if not isinstance(servers, LocalServers):
        return f"{len(servers.urls)} that somebody else started: their memory is not known here"
    memory = server_memory(shape, servers, config.cluster, config.publish.weights)
    return (
        f"{servers.count} x tensor {servers.tensor}; GB a GPU: weights {memory.weights / GB:.1f}, "
        f"KV cache {memory.kv_cache / GB:.1f}; room for {memory.tokens} tokens a server: "
        f"{memory.tokens // config.rollout.max_output_tokens} answers of {config.rollout.max_output_tokens}, "
        f"{memory.tokens // servers.max_num_seqs} tokens each of {servers.max_num_seqs} at once"
    )


# --- what is refused -------------------------------------------------------------------------------


def _require_transport(config: RunConfig) -> None:
    """An arena in shared memory reaches servers of the same node alone."""
    needed = config.train.parallel.world_size + _num_server_gpus(config)
    if isinstance(config.publish, ArenaPublish) and needed > config.cluster.gpus_per_node:
        raise ConfigError(
            f'publish.kind: "arena" is shared memory of one node, and trainer and servers need {needed} GPUs '
            f'where cluster.gpus_per_node = {config.cluster.gpus_per_node}; use "stream" or "files"'
        )


def _require_trainer(config: RunConfig, shape: ModelShape) -> None:
    fullest = max(_stages(config, config.train, shape), key=lambda memory: memory.total)
    room = _room(config)
    if fullest.total <= room:
        return
    better = _smallest_change(config, shape)
    remedy = _remedy(config.train, better) if better else "no other layout fits: lower train.seq_len"
    raise ConfigError(
        f"train.parallel: stage {fullest.stage} needs {fullest.total / GB:.1f} GB a GPU, and "
        f"{room / GB:.1f} GB are left of cluster.gpu_memory_gb = {config.cluster.gpu_memory_gb:g}; {remedy}"
    )


def _require_servers(config: RunConfig, servers: LocalServers, shape: ModelShape) -> None:
    if not _can_share(shape, servers.tensor):
        raise ConfigError(
            f"rollout.servers.tensor = {servers.tensor}: vLLM cannot share out the model's {shape.num_heads} "
            f"attention heads and {shape.num_kv_heads} key/value groups; use one of "
            f"{', '.join(map(str, _server_choices(config, shape)))}"
        )
    memory = server_memory(shape, servers, config.cluster, config.publish.weights)
    if servers.kv_cache_gib != "auto" and memory.weights + memory.kv_cache > _room(config):
        raise ConfigError(
            f"rollout.servers.kv_cache_gib = {servers.kv_cache_gib:g}: with {memory.weights / GB:.1f} GB of "
            f"weights it exceeds the {_room(config) / GB:.1f} GB that are left of cluster.gpu_memory_gb = "
            f'{config.cluster.gpu_memory_gb:g}; set it to "auto" or lower it'
        )
    if memory.tokens < servers.max_model_len:  # vLLM would not start
        raise ConfigError(
            f"rollout.servers.tensor = {servers.tensor}: beside {memory.weights / GB:.1f} GB of weights a "
            f"GPU has room for {memory.tokens} tokens of KV cache, and one answer may take max_model_len = "
            f"{servers.max_model_len}; {_server_remedy(config, servers, shape)}"
        )


def _server_remedy(config: RunConfig, servers: LocalServers, shape: ModelShape) -> str:
    """The least tensor size that gives one answer room, on about as many GPUs."""
    for tensor in _server_choices(config, shape):
        larger = msgspec.structs.replace(servers, tensor=tensor)
        if (
            tensor > servers.tensor
            and server_memory(shape, larger, config.cluster, config.publish.weights).tokens
            >= servers.max_model_len
        ):
            count = max(1, servers.num_devices // tensor)
            return f"set rollout.servers.tensor = {tensor}, rollout.servers.count = {count}"
    return "no larger server fits: lower rollout.servers.max_model_len"


def _server_choices(config: RunConfig, shape: ModelShape) -> list[int]:
    per_node = config.cluster.gpus_per_node
    return [n for n in range(1, per_node + 1) if per_node % n == 0 and _can_share(shape, n)]


def _can_share(shape: ModelShape, tensor: int) -> bool:
    """vLLM's rule: heads divide, and so do key/value groups unless each rank gets a copy of one."""
    groups = shape.num_kv_heads
    return shape.num_heads % tensor == 0 and (groups % tensor == 0 or tensor % groups == 0)


# --- the search ------------------------------------------------------------------------------------


def _smallest_change(config: RunConfig, shape: ModelShape) -> Train | None:
    """The trainer that fits and differs least from the recipe's."""
    room = _room(config)
    fitting = [
        train
        for train in _other_trainers(config, shape)
        if max(memory.total for memory in _stages(config, train, shape)) <= room
    ]
    return min(fitting, key=lambda train: _size_of_change(config.train, train), default=None)


def _other_trainers(config: RunConfig, shape: ModelShape) -> Iterator[Train]:
    """Every layout on as many GPUs or more, with every recomputation from the recipe's upwards.

    Data ranks fill the GPUs.
    """
    old = config.train.parallel
    sizes = product(_sizes_near(old.tensor), _sizes_near(old.context), _sizes_near(old.pipeline))
    options = list(
        product(
            sorted({old.sequence, True}),
            sorted({old.distributed_optimizer, True}),
            _RECOMPUTE[_RECOMPUTE.index(config.train.recompute) :],
        )
    )
    for tensor, context, pipeline in sizes:
        data = -(-old.world_size // (tensor * context * pipeline))
        if not _is_layout(config, shape, tensor, context * data, pipeline):
            continue
        for sequence, distributed_optimizer, recompute in options:
            if (sequence and tensor == 1) or not _takes_rows(
                config.train, context, tensor if sequence else 1
            ):
                continue
            parallel = msgspec.structs.replace(
                old,
                tensor=tensor,
                context=context,
                pipeline=pipeline,
                data=data,
                sequence=sequence,
                distributed_optimizer=distributed_optimizer,
            )
            yield msgspec.structs.replace(config.train, parallel=parallel, recompute=recompute)


def _takes_rows(train: Train, context: int, sequence: int) -> bool:
    """Rows divide as FP8 asks; msgspec would refuse the section otherwise."""
    return (
        not isinstance(train.fp8, EngineFp8)
        or train.seq_len % (train.fp8.ALIGNMENT * context * sequence) == 0
    )


def _is_layout(config: RunConfig, shape: ModelShape, tensor: int, replicas: int, pipeline: int) -> bool:
    """The model can be shared out like this, and the ranks fill whole nodes."""
    world, per_node = tensor * pipeline * replicas, config.cluster.gpus_per_node
    return (
        not any(size % tensor for size in (shape.num_heads, shape.num_kv_heads, shape.ffn_size, per_node))
        and shape.num_layers % (pipeline * config.train.parallel.virtual_pipeline) == 0
        and (pipeline > 1 or config.train.parallel.virtual_pipeline == 1)
        and (world <= per_node or world % per_node == 0)
        and fp8.misfit(shape, config.train.fp8, tensor=tensor, pipeline=pipeline) == ""
    )


def _sizes_near(size: int) -> list[int]:
    smaller = {size // factor for factor in _FACTORS if size % factor == 0}
    return sorted(smaller | {size * factor for factor in _FACTORS})


def _size_of_change(old: Train, new: Train) -> tuple[int, int, int]:
    """Smaller is better: GPUs in all, keys to set, time that they cost."""
    keys = _changed(old, new)
    return new.parallel.world_size, len(keys), sum(_COSTS[key] for key in keys)


def _changed(old: Train, new: Train) -> dict[str, Any]:
    """Keys of the recipe that differ, with their new values."""
    before, after = msgspec.structs.asdict(old.parallel), msgspec.structs.asdict(new.parallel)
    keys = {f"train.parallel.{key}": after[key] for key in after if after[key] != before[key]}
    return keys if old.recompute == new.recompute else keys | {"train.recompute": new.recompute}


def _remedy(old: Train, new: Train) -> str:
    values = {key: json.dumps(value) for key, value in _changed(old, new).items()}  # TOML writes these alike
    change = "set " + ", ".join(f"{key} = {value}" for key, value in values.items())
    grown = new.parallel.world_size > old.parallel.world_size
    return f"{change} ({new.parallel.world_size} GPUs)" if grown else change
