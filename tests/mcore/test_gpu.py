"""The same learner on a CUDA device: Transformer Engine, bfloat16, NCCL, weights out through the bridge.

Nothing here runs without a GPU; what it shares with the CPU is checked there, at every layout.
"""

from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from apriel_mcore.bench.ranks import run_ranks
from tests.mcore.llama import (
    LOSS,
    SHAPE,
    TEMPERATURE,
    batch_of,
    hf_model,
    reference_logprobs,
    reference_steps,
    samples_of,
    train_section,
)

pytestmark = [
    pytest.mark.gpu,
    # Counted through the driver's library, which leaves CUDA uninitialised: the ranks are forks.
    pytest.mark.skipif(torch.cuda.device_count() == 0, reason="needs a CUDA device"),
]

NUM_STEPS = 5
TEXT = [5, 9, 3, 77, 100, 4, 2, 50, 51]


class Found(msgspec.Struct):
    """What the rank on the device finds."""

    implementation: str
    loaded: dict[str, torch.Tensor]
    trained: dict[str, torch.Tensor]
    logprobs_T: list[float]
    losses: list[float]


def train_on_cuda(folder: Path, arena: Path, layout: dict[str, Any]) -> Found:
    from apriel_mcore.mcore import parallel
    from apriel_mcore.mcore.learner import MegatronLearner

    section = msgspec.structs.replace(train_section("bf16", **layout), device="cuda")
    ranks = parallel.start(section, seed=3, timeout_s=60)
    learner = MegatronLearner(SHAPE, section, LOSS, ranks=ranks, temperature=TEMPERATURE)
    learner.load_hf(folder)
    loaded = exported(learner, arena)
    logprobs_T = learner.logprobs(TEXT)
    losses = []
    for step in range(NUM_STEPS):
        batch = batch_of(samples_of(step), num_data_ranks=1, pad_multiple=learner.pad_multiple)
        losses.append(learner.train_step(batch).loss)
    return Found(learner.optimizer.implementation, loaded, exported(learner, arena), logprobs_T, losses)


def exported(learner: Any, path: Path) -> dict[str, torch.Tensor]:
    """The weights as servers get them."""
    from apriel_mcore.bridge.arena import Arena
    from apriel_mcore.bridge.plan import make_plan
    from apriel_mcore.bridge.reshard import export_shard

    plan = make_plan(SHAPE, learner.ranks.sizes, learner.spec)
    arena = Arena.create(path, plan.tensors, "bfloat16")
    export_shard(learner.chunks(), plan.exports_of(learner.coordinates), arena)
    return {name: view.clone() for name, view in arena.views.items()}


@pytest.mark.parametrize(
    "layout", [{}, {"distributed_optimizer": True}], ids=["plain", "distributed_optimizer"]
)
def test_trains_like_the_reference(layout: dict[str, Any], tmp_path: Path) -> None:
    torch.set_num_threads(1)
    model = hf_model()
    model.save_pretrained(tmp_path / "hf")
    start = {name: weight.clone() for name, weight in model.state_dict().items()}
    with torch.no_grad():
        wanted = reference_logprobs(model, TEXT).tolist()
    (found,) = run_ranks(1, train_on_cuda, tmp_path / "hf", tmp_path / "arena", layout, folder=tmp_path)

    assert found.implementation == "transformer_engine.FusedAdam"
    assert all(torch.equal(weight, start[name].bfloat16()) for name, weight in found.loaded.items())
    assert found.logprobs_T == pytest.approx(wanted, abs=0.15)

    batches = [batch_of(samples_of(step), num_data_ranks=1, pad_multiple=1) for step in range(NUM_STEPS)]
    losses = [loss for loss, _ in reference_steps(model, batches)]
    assert found.losses == pytest.approx(losses, abs=0.05)
    after = model.state_dict()
    for name, weight in found.trained.items():
        assert (weight.float() - after[name]).norm() < 5e-3 * after[name].norm(), name
