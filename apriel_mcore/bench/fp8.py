"""What do FP8 weights save on the way to the servers, and what does quantising them cost?

    bfloat16 parameters of one rank --export--> arena              .as_trained.seconds
        --quantise--> FP8 and scales --export--> arena              .fp8_block.seconds, .fp8_tensor.seconds

On one thread, one way behind the other in every round; figures are medians over the rounds.
"""

import argparse
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from apriel_mcore.bench.reshard import over_shapes
from apriel_mcore.bench.rounds import interleave
from apriel_mcore.bench.shapes import SHAPES
from apriel_mcore.bridge.arena import Arena
from apriel_mcore.bridge.plan import Coordinates, Plan, make_plan
from apriel_mcore.bridge.quantise import QuantisedTrainer
from apriel_mcore.bridge.reshard import Chunks, ShardExport
from apriel_mcore.bridge.scales import scales_for, with_scales
from apriel_mcore.bridge.shape import ModelShape
from apriel_mcore.config.schema import Parallel
from apriel_mcore.config.schema.publish import Weights

Numbers = dict[str, float | str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Shapes, rounds, and where the shared memory is."""
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["135m"])
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds; figures are medians")
    parser.add_argument("--directory", type=Path, default=Path("/dev/shm"), help="in-memory file system")


def run(args: argparse.Namespace) -> Numbers:
    """Bytes that travel and seconds until they lie in the arena, for each precision of the servers."""
    return over_shapes(args, measure, prefix="fp8-")


def measure(shape: ModelShape, folder: Path, *, rounds: int) -> dict[str, float]:
    """The figures of one shape; its arenas go to `folder`, in memory."""
    trainer = OneRank(make_plan(shape, Parallel(), "local"))
    ways: dict[str, Callable[[], object]] = {}
    numbers: dict[str, float] = {}
    for weights in get_args(Weights):
        way, num_bytes = _way(shape, weights, trainer, folder)
        ways[weights] = way
        numbers[f"{weights}.megabytes"] = num_bytes / 1e6
    seconds = interleave(ways, rounds)
    return numbers | {f"{weights}.seconds": statistics.median(found) for weights, found in seconds.items()}


class OneRank:
    """publish.Trainer of the only rank, with random parameters."""

    def __init__(self, plan: Plan) -> None:
        self.coordinates = Coordinates(
            tensor_rank=0, pipeline_rank=0, data_rank=0, context_rank=0, chunks=plan.chunks[0]
        )
        generator = torch.Generator().manual_seed(0)
        self._chunk: dict[str, Tensor] = {
            shard.parameter: torch.randn(shard.sizes, generator=generator).bfloat16() for shard in plan.shards
        }

    def chunks(self) -> Chunks:
        """See Trainer."""
        return [self._chunk]

    def logprobs(self, tokens_T: Sequence[int]) -> list[float]:
        """There is no model to ask."""
        raise AssertionError("a bench of bytes asks for no log-probs")

    def maximum(self, values: Tensor) -> None:
        """Of one rank: its own (quantise.Reduce)."""


def _way(
    shape: ModelShape, weights: Weights, trainer: OneRank, folder: Path
) -> tuple[Callable[[], None], int]:
    """How a version gets into an arena of its own, and the bytes of its tensors."""
    scales = scales_for(shape, weights)
    plan = with_scales(make_plan(shape, Parallel(), "local"), scales)
    arena = Arena.create(folder / weights, plan.tensors, plan.dtypes("bfloat16"))
    export = ShardExport(plan.exports_of(trainer.coordinates), arena)
    publishing = QuantisedTrainer(trainer, plan, scales, trainer) if scales else trainer
    num_bytes = sum(view.numel() * view.itemsize for view in arena.views.values())
    return lambda: export.run(publishing.chunks()), num_bytes
