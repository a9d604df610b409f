"""Real ranks for engine tests: Megatron is imported once, then every case forks its own gloo world."""

import os
import pickle
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import torch


def run_ranks(world: int, case: Callable[..., Any], *args: Any, folder: Path) -> list[Any]:
    """`case(*args)` on `world` forked ranks; what each returned, in rank order.

    The forks inherit the arguments; only results are pickled. Nothing may have entered the CPU back end
    in this process, and torch must have run single-threaded.
    """
    import apriel_mcore.mcore.learner  # noqa: F401  (imported here once, inherited by the forks)

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    children = []
    for rank in range(world):
        child = os.fork()
        if child == 0:
            _be_rank(rank, world, port, case, args, folder)
        children.append(child)
    codes = [os.waitpid(child, 0)[1] for child in children]
    results = [pickle.loads((folder / f"rank{rank}").read_bytes()) for rank in range(world)]
    failures = [text for text in results if isinstance(text, _Failure)]
    assert not any(codes) and not failures, "\n".join(failure.text for failure in failures)
    return results


class _Failure(msgspec.Struct):
    text: str


def _be_rank(
    rank: int, world: int, port: int, case: Callable[..., Any], args: tuple[Any, ...], folder: Path
) -> None:
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    code = 0
    try:
        result = case(*args)
    except BaseException:
        result, code = _Failure(f"rank {rank}:\n{traceback.format_exc()}"), 1
    (folder / f"rank{rank}").write_bytes(pickle.dumps(result))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
