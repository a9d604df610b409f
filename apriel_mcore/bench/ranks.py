"""How does one process play many ranks? A server imports Megatron once and forks every case's world.

Not from this process: what has run threads or backward passes cannot be forked safely.
"""

import multiprocessing
import os
import pickle
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from apriel_mcore.errors import TrainingError


def run_ranks(world: int, case: Callable[..., Any], *args: Any, folder: Path) -> list[Any]:
    """`case(*args)` on `world` forked ranks; what each returned, in rank order.

    `case` is a function of a module and its arguments can be pickled; results are, into `folder`.
    TrainingError when a rank fails; its traceback is on stderr.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # Importing Transformer Engine may already initialise CUDA, which no fork survives.
    if torch.cuda.device_count() > 0:
        context = multiprocessing.get_context("spawn")
    else:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["apriel_mcore.mcore.learner"])
    ranks = [
        context.Process(target=_be_rank, args=(rank, world, port, case, args, folder))
        for rank in range(world)
    ]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    if failed := [number for number, rank in enumerate(ranks) if rank.exitcode]:
        raise TrainingError(f"of {world} ranks, these failed (tracebacks above): {failed}")
    return [pickle.loads(_result(folder, rank).read_bytes()) for rank in range(world)]


def _be_rank(
    rank: int, world: int, port: int, case: Callable[..., Any], args: tuple[Any, ...], folder: Path
) -> None:
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    _result(folder, rank).write_bytes(pickle.dumps(case(*args)))


def _result(folder: Path, rank: int) -> Path:
    return folder / f"rank{rank}"
