"""What does FP8 do to loss and log-probs of a run? Its recorded rollouts, trained again in each way.

    RUN_DIR/resolved.toml, rollouts/step_*.jsonl.zst --> batches --> one learner a way, from the model folder

All ways start from the same weights and see the same batches, so their numbers differ by rounding alone. On a
CPU, FP8 is emulated (mcore/fp8_emulation.py).
"""

import argparse
from pathlib import Path
from typing import Any

import msgspec

from apriel_mcore.bridge import shape as model_shape
from apriel_mcore.config.load import load
from apriel_mcore.config.schema import EmulatedFp8, Fp8, NoFp8, RunConfig
from apriel_mcore.data.model_files import model_folder
from apriel_mcore.data.packing import pack_step
from apriel_mcore.errors import InputError
from apriel_mcore.loss.advantage import to_samples
from apriel_mcore.loss.reward import shape_group
from apriel_mcore.obs.trained import read_groups
from apriel_mcore.rundir import RunDir
from apriel_mcore.types import Batch, StepStats

Numbers = dict[str, float | str]

WAYS: dict[str, Fp8] = {
    "off": NoFp8(),
    "tensorwise": EmulatedFp8(scaling="tensorwise"),
    "tensorwise_all_layers": EmulatedFp8(scaling="tensorwise", bf16_first=0, bf16_last=0),
    "blockwise": EmulatedFp8(scaling="blockwise"),
}
"""Of computing the linear layers."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which run, and how much of it."""
    parser.add_argument("--run-dir", type=Path, default=Path("runs/quickstart"), help="a run on a CPU")
    parser.add_argument("--steps", type=int, default=3, help="recorded steps to train again")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))


def run(args: argparse.Namespace) -> Numbers:
    """Loss and |log-prob difference| to the server of recorded steps, with and without emulated FP8."""
    run_dir = RunDir(args.run_dir)
    if not run_dir.recipe.exists():
        raise InputError(f"{run_dir.root}: no run here; `make quickstart` makes one, or give --run-dir")
    config = load(run_dir.recipe)
    batches = [_recorded(run_dir, config, step) for step in range(1, args.steps + 1)]
    numbers: Numbers = {}
    for way in args.ways:
        for step, stats in enumerate(_trained(config, WAYS[way], batches), start=1):
            numbers[f"{way}.{step}.loss"] = stats.loss
            numbers[f"{way}.{step}.logprob_abs_diff"] = stats.logprob_abs_diff
            numbers[f"{way}.{step}.grad_norm"] = stats.grad_norm
            numbers[f"{way}.{step}.seconds"] = stats.seconds
    return numbers


def _recorded(run_dir: RunDir, config: RunConfig, step: int) -> Batch:
    """The batch of a step, as loop.py composed it."""
    path = run_dir.rollouts / f"step_{step:06d}.jsonl.zst"
    if not path.exists():
        raise InputError(f"{path}: this step was not recorded; lower --steps")
    samples = [
        sample
        for group in read_groups(path)
        for sample in to_samples(group, shape_group(group, config), config.advantage)
    ]
    return pack_step(samples, config, num_data_ranks=1)


def _trained(config: RunConfig, fp8: Fp8, batches: list[Batch]) -> list[StepStats]:
    """One optimizer step for each batch on one rank, from the weights of the model folder."""
    from apriel_mcore.mcore import parallel
    from apriel_mcore.mcore.learner import MegatronLearner

    folder = model_folder(config.model)
    train = msgspec.structs.replace(config.train, fp8=fp8)
    ranks = parallel.start(train, seed=config.seed)
    learner: Any = MegatronLearner(model_shape.read(folder), train, config.loss, ranks=ranks)
    learner.load_hf(folder)
    stats = [learner.train_step(batch) for batch in batches]
    parallel.stop()
    return stats
