"""How fast do TP2 x PP2 bfloat16 shards become a Hugging Face arena in shared memory?

    shards of 4 ranks (one shared buffer) --in 1 process----> arena        .seconds
                                          --in 4 processes--> arena        .ranks4_seconds
                                          --cat, save_file--> other file   .gather_save_seconds
                                          --the same, all cores to cat-->  .gather_save_cores_seconds
                                          --memcpy----------> arena        .memcpy_seconds

All move the same bytes, on one thread a process but for the last, on pages that exist already, one behind
the other in every round; seconds are medians over the rounds, ratios medians of the rounds' own ratios. The
four processes are compared with the faster of both baselines. The arena is compared bit by bit with the
gathered tensors. What servers of 1, 2 and 4 tensor ranks are sent is counted (server_slices.py). Processes
are started as a trainer's ranks are (processes.streaming_copies), the baselines as a user would start them.
"""

import argparse
import ctypes
import itertools
import multiprocessing
import os
import statistics
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Protocol

import torch
from safetensors.torch import save_file
from torch import Tensor

from apriel_mcore.bench import server_slices
from apriel_mcore.bench.rounds import interleave, ratio
from apriel_mcore.bench.shapes import SHAPES
from apriel_mcore.bridge.arena import Arena
from apriel_mcore.bridge.layouts import Box
from apriel_mcore.bridge.plan import Coordinates, Copy, Plan, make_plan
from apriel_mcore.bridge.receipt import digest
from apriel_mcore.bridge.reshard import ShardExport
from apriel_mcore.bridge.shape import ModelShape
from apriel_mcore.config.schema import Parallel
from apriel_mcore.processes import streaming_copies

PARALLEL = Parallel(tensor=2, pipeline=2)
NUM_RANKS = PARALLEL.world_size
BARRIER_TIMEOUT_S = 300
Numbers = dict[str, float | str]
Chunk = dict[str, Tensor]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Shapes, rounds, and where the shared memory is."""
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["135m", "1b"])
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds; figures are medians")
    parser.add_argument("--directory", type=Path, default=Path("/dev/shm"), help="in-memory file system")


def run(args: argparse.Namespace) -> Numbers:
    """Seconds, GB/s and ratios of direct resharding for each shape."""
    return over_shapes(args, measure, prefix="reshard-")


def over_shapes(args: argparse.Namespace, measure: "Measure", *, prefix: str) -> Numbers:
    """Figures of every shape asked for, on one thread, each with a folder in memory."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    numbers: Numbers = {}
    try:
        for name in args.shapes:
            with tempfile.TemporaryDirectory(prefix=prefix, dir=args.directory) as folder:
                measured = measure(SHAPES[name], Path(folder), rounds=args.rounds)
            numbers |= {f"{name}.{key}": value for key, value in measured.items()}
    finally:
        torch.set_num_threads(threads)
    return numbers


class Measure(Protocol):
    """A bench of one shape."""

    def __call__(self, shape: ModelShape, folder: Path, *, rounds: int) -> dict[str, float]: ...


def measure(shape: ModelShape, folder: Path, *, rounds: int) -> dict[str, float]:
    """The figures of one shape; its files go to `folder`, in memory."""
    plan = make_plan(shape, PARALLEL, "local")
    shards = Arena.create(folder / "shards", _shard_sizes(plan), "bfloat16")
    _fill(shards)
    arena = Arena.create(folder / "arena", plan.tensors, "bfloat16")
    num_bytes = 2 * shape.num_parameters

    def memcpy() -> None:
        ctypes.memmove(_first(arena).data_ptr(), _first(shards).data_ptr(), num_bytes)

    def gather_save() -> None:
        save_file(gather(plan, shards), folder / "gathered")

    def gather_save_cores() -> None:
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        gather_save()
        torch.set_num_threads(1)

    together, apart = [range(NUM_RANKS)], [[rank] for rank in range(NUM_RANKS)]
    with RankProcesses(shape, folder, together) as one, RankProcesses(shape, folder, apart) as four:
        ways: dict[str, Callable[[], object]] = {
            "memcpy": memcpy,
            "direct": one.export,
            "ranks4": four.export,
            "gather_save": gather_save,
            "gather_save_cores": gather_save_cores,
            "digest": lambda: digest(arena.mapping),
        }
        seconds = interleave(ways, rounds)
        for processes in (one, four):
            memcpy()  # leaves something else there
            processes.export()
            _check_equal(plan, shards, arena)
    ranks = itertools.product(range(PARALLEL.pipeline), range(PARALLEL.tensor))
    held = {rank: chunk for rank, (_, chunk) in zip(ranks, _ranks(plan, shards), strict=True)}
    slices = server_slices.measure(shape, PARALLEL, held, gather(plan, shards))
    return _figures(seconds, num_bytes) | slices


def gather(plan: Plan, shards: Arena) -> dict[str, Tensor]:
    """What is usual: every HF tensor joined from its pieces, in fresh memory."""
    pieces: defaultdict[str, list[tuple[Box, Tensor]]] = defaultdict(list)
    for copies, chunk in _ranks(plan, shards):
        for copy in copies:
            source = chunk[copy.parameter][tuple(slice(*span) for span in copy.shard)]
            pieces[copy.hf].append((copy.hf_box, source))
    gathered: dict[str, Tensor] = {}
    for name, found in pieces.items():
        found.sort(key=lambda piece: piece[0])
        same_rows = len({box[0] for box, _ in found}) == 1
        dim = 1 if same_rows and len(found) > 1 else 0
        gathered[name] = torch.cat([tensor for _, tensor in found], dim=dim)
    return gathered


class RankProcesses:
    """Processes that hold the shards of one or more ranks, all writing into the arena at a signal."""

    def __init__(self, shape: ModelShape, folder: Path, ranks_of: Sequence[Sequence[int]]) -> None:
        context = multiprocessing.get_context("spawn")
        self._start = context.Barrier(len(ranks_of) + 1)
        self._done = context.Barrier(len(ranks_of) + 1)
        self._processes = [
            context.Process(target=_serve, args=(shape, folder, ranks, self._start, self._done), daemon=True)
            for ranks in ranks_of
        ]

    def __enter__(self) -> "RankProcesses":
        ours = dict(os.environ)
        os.environ.update(streaming_copies())
        for process in self._processes:
            process.start()
        os.environ.clear()
        os.environ.update(ours)
        self._done.wait(BARRIER_TIMEOUT_S)
        return self

    def __exit__(self, *exc: object) -> None:
        self._start.abort()
        for process in self._processes:
            process.join(10)

    def export(self) -> None:
        """Every rank copies its boxes; returns when the last is done."""
        self._start.wait(BARRIER_TIMEOUT_S)
        self._done.wait(BARRIER_TIMEOUT_S)


def _serve(shape: ModelShape, folder: Path, ranks: Sequence[int], start: Barrier, done: Barrier) -> None:
    torch.set_num_threads(1)
    plan = make_plan(shape, PARALLEL, "local")
    shards, arena = Arena.attach(folder / "shards"), Arena.attach(folder / "arena")
    of_rank = _ranks(plan, shards)
    exports = [(ShardExport(of_rank[rank][0], arena), [of_rank[rank][1]]) for rank in ranks]
    done.wait(BARRIER_TIMEOUT_S)
    while _go(start):
        for export, chunks in exports:
            export.run(chunks)
        done.wait(BARRIER_TIMEOUT_S)


def _go(start: Barrier) -> bool:
    """False when the parent has called it off."""
    try:
        start.wait(BARRIER_TIMEOUT_S)
    except threading.BrokenBarrierError:
        return False
    return True


def _shard_sizes(plan: Plan) -> dict[str, tuple[int, ...]]:
    return {_key(part.pipeline_rank, part.tensor_rank, part.parameter): part.sizes for part in plan.shards}


def _key(stage: int, tensor_rank: int, parameter: str) -> str:
    return f"{stage}.{tensor_rank}.{parameter}"


def _ranks(plan: Plan, shards: Arena) -> list[tuple[list[Copy], Chunk]]:
    """What each rank exports, and its parameters."""
    ranks: list[tuple[list[Copy], Chunk]] = []
    for stage in range(PARALLEL.pipeline):
        for tensor_rank in range(PARALLEL.tensor):
            rank = Coordinates(
                tensor_rank=tensor_rank,
                pipeline_rank=stage,
                data_rank=0,
                context_rank=0,
                chunks=plan.chunks[stage],
            )
            names = [shard.parameter for shard in plan.shards_of(rank)]
            chunk = {name: shards.views[_key(stage, tensor_rank, name)] for name in names}
            ranks.append((plan.exports_of(rank), chunk))
    return ranks


def _first(arena: Arena) -> Tensor:
    return next(iter(arena.views.values()))


def _fill(shards: Arena) -> None:
    """Bit patterns that differ from element to element and from tensor to tensor."""
    for number, view in enumerate(shards.views.values()):
        words = view.view(torch.int16).flatten()
        words.copy_(torch.arange(words.numel(), dtype=torch.int32).mul_(2 * number + 1))


def _check_equal(plan: Plan, shards: Arena, arena: Arena) -> None:
    for name, tensor in gather(plan, shards).items():
        assert torch.equal(arena.views[name].view(torch.int16), tensor.view(torch.int16)), name


def _figures(seconds: dict[str, list[float]], num_bytes: int) -> dict[str, float]:
    median = {name: statistics.median(found) for name, found in seconds.items()}
    faster = list(map(min, seconds["gather_save"], seconds["gather_save_cores"]))
    return {
        "seconds": median["direct"],
        "gb_per_s": num_bytes / median["direct"] / 1e9,
        "ratio_to_memcpy": ratio(seconds["direct"], seconds["memcpy"]),
        "speedup_over_gather_save": ratio(seconds["gather_save"], seconds["direct"]),
        "ranks4_seconds": median["ranks4"],
        "ranks4_ratio_to_memcpy": ratio(seconds["ranks4"], seconds["memcpy"]),
        "ranks4_speedup_over_gather_save": ratio(faster, seconds["ranks4"]),
        "gather_save_cores_seconds": median["gather_save_cores"],
        "memcpy_seconds": median["memcpy"],
        "gather_save_seconds": median["gather_save"],
        "digest_seconds": median["digest"],
        "gigabytes": num_bytes / 1e9,
    }
