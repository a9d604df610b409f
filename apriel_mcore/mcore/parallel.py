"""Who is this rank, and how does it talk to the others? Process groups, seeds, threads.

    torchrun (or one process) --start--> torch.distributed --> Megatron's groups: tensor x context x
    data x pipeline, tensor innermost, so that the ranks of one tensor group are neighbours.

The same code runs over gloo on a CPU and over NCCL on GPUs.
"""

import os
import random
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any, Literal

import msgspec
import numpy as np
import torch
import torch.distributed as dist
from megatron.core import parallel_state, tensor_parallel
from torch import Tensor
from torch._C._distributed_c10d import HashStore

from apriel_mcore.config.schema import Parallel, Train
from apriel_mcore.errors import ConfigError
from apriel_mcore.mcore import cpu_backend

TIMEOUT_S = 1800
"""A collective that waits longer ends the run; long enough for a slow checkpoint on another rank."""


class Ranks(msgspec.Struct, frozen=True, kw_only=True):
    """The coordinates of this process."""

    world: int
    tensor: int
    pipeline: int
    context: int
    data: int
    sizes: Parallel

    @property
    def is_first(self) -> bool:
        """Owns the pool and writes files."""
        return self.world == 0

    def broadcast(self, payload: bytes) -> bytes:
        """The first rank's payload, on every rank; see same_on_all_ranks."""
        return same_on_all_ranks(payload)

    def gather(self, payload: bytes) -> list[bytes]:
        """Every rank's payload, in their order, on every rank; see of_all_ranks."""
        return of_all_ranks(payload)

    def barrier(self) -> None:
        """Wait for every rank."""
        dist.barrier()

    def maximum(self, values: Tensor) -> None:
        """Replace each value by the largest of all ranks'."""
        dist.all_reduce(values, op=dist.ReduceOp.MAX)


def start(train: Train, *, seed: int, timeout_s: int = TIMEOUT_S) -> Ranks:
    """Joins the other ranks and sets up Megatron's groups, seeds and threads, once per process.

    Rank and world size come from torchrun's environment (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR,
    MASTER_PORT); without it the process is alone. ConfigError when the world is not the size that
    `train.parallel` asks for.
    """
    _check_world_size(train.parallel)
    if train.device == "cpu":
        cpu_backend.enter()
        torch.set_num_threads(train.threads or _cores_per_rank())
    else:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    _init_process_group(train, timeout_s=timeout_s)
    sizes = train.parallel
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=sizes.tensor,
        pipeline_model_parallel_size=sizes.pipeline,
        virtual_pipeline_model_parallel_size=sizes.virtual_pipeline if sizes.virtual_pipeline > 1 else None,
        context_parallel_size=sizes.context,
        distributed_timeout_minutes=max(1, timeout_s // 60),
        create_gloo_process_groups=False,
    )
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    tensor_parallel.model_parallel_cuda_manual_seed(seed)
    return Ranks(
        world=dist.get_rank(),
        tensor=parallel_state.get_tensor_model_parallel_rank(),
        pipeline=parallel_state.get_pipeline_model_parallel_rank(),
        context=parallel_state.get_context_parallel_rank(),
        data=parallel_state.get_data_parallel_rank(),
        sizes=sizes,
    )


def stop() -> None:
    """Leaves the groups; the process may `start` again."""
    parallel_state.destroy_model_parallel()
    dist.destroy_process_group()


def device() -> torch.device:
    """Where this rank's tensors live."""
    current = torch.cuda.current_device()
    return current if isinstance(current, torch.device) else torch.device("cuda", current)


def group(axis: Literal["tensor", "pipeline", "context", "data", "replica"]) -> dist.ProcessGroup:
    """The ranks that differ from this one along `axis` alone; replica: data and context, the ranks that
    hold the same weights."""
    find: dict[str, Callable[[], Any]] = {
        "tensor": parallel_state.get_tensor_model_parallel_group,
        "pipeline": parallel_state.get_pipeline_model_parallel_group,
        "context": parallel_state.get_context_parallel_group,
        "data": parallel_state.get_data_parallel_group,
        "replica": partial(parallel_state.get_data_parallel_group, with_context_parallel=True),
    }
    return find[axis]()


def same_on_all_ranks(value: bytes) -> bytes:
    """Rank 0's value, on every rank; what the others pass is ignored. Collective over the world."""
    size = torch.tensor([len(value)], dtype=torch.int64)
    dist.broadcast(size, src=0)
    if dist.get_rank() == 0:
        content = torch.frombuffer(bytearray(value or b"\0"), dtype=torch.uint8)
    else:
        content = torch.empty(max(1, int(size)), dtype=torch.uint8)
    dist.broadcast(content, src=0)
    return content.numpy().tobytes()[: int(size)]


def of_all_ranks(value: bytes) -> list[bytes]:
    """What each rank passes, by rank, on every rank. Collective over the world."""
    world = dist.get_world_size()
    sizes_R = [torch.empty(1, dtype=torch.int64) for _ in range(world)]
    dist.all_gather(sizes_R, torch.tensor([len(value)], dtype=torch.int64))
    longest = max(1, *(int(size) for size in sizes_R))
    contents_R = [torch.empty(longest, dtype=torch.uint8) for _ in range(world)]
    dist.all_gather(contents_R, torch.frombuffer(bytearray(value.ljust(longest, b"\0")), dtype=torch.uint8))
    return [content.numpy().tobytes()[: int(size)] for content, size in zip(contents_R, sizes_R, strict=True)]


def _init_process_group(train: Train, *, timeout_s: int) -> None:
    # CPU tensors keep travelling over gloo on GPU nodes, so that small control messages need no device.
    backend = "gloo" if train.device == "cpu" else "cpu:gloo,cuda:nccl"
    timeout = timedelta(seconds=timeout_s)
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group(backend, timeout=timeout)
    else:
        dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1, timeout=timeout)


def _check_world_size(parallel: Parallel) -> None:
    found = int(os.environ.get("WORLD_SIZE", "1"))
    if found != parallel.world_size:
        raise ConfigError(
            f"train.parallel: tensor {parallel.tensor} x pipeline {parallel.pipeline} x context "
            f"{parallel.context} x data {parallel.data} needs {parallel.world_size} ranks, found {found}: "
            f"start with torchrun --nproc-per-node {parallel.world_size}, or change train.parallel.data"
        )


def _cores_per_rank() -> int:
    local_ranks = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("WORLD_SIZE", "1")))
    return max(1, len(os.sched_getaffinity(0)) // local_ranks)
