"""What the formulas of apriel_mcore/memory.py count is what the trainer allocates, on real ranks."""

from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
import torch

from apriel_mcore.bench.ranks import run_ranks
from apriel_mcore.bridge.shape import ModelShape
from apriel_mcore.config.schema import Train
from apriel_mcore.memory import kept_per_token, training_memory
from apriel_mcore.types import Sample
from tests.mcore.llama import LOSS, SHAPE, batch_of, samples_of, train_section

pytestmark = pytest.mark.engine

ROW = 64
LAYOUTS: dict[str, dict[str, Any]] = {
    "one_rank": {},
    "tensor2_pipeline2": {"tensor": 2, "pipeline": 2},
    "data2": {"data": 2},
    "data2_distributed": {"data": 2, "distributed_optimizer": True},
    "context2_distributed": {"context": 2, "distributed_optimizer": True},
    "pipeline2_virtual2": {"pipeline": 2, "virtual_pipeline": 2},
}


def learner_of(train: Train, shape: ModelShape = SHAPE) -> Any:
    from apriel_mcore.mcore import parallel
    from apriel_mcore.mcore.learner import MegatronLearner

    ranks = parallel.start(train, seed=3, timeout_s=60)
    return MegatronLearner(shape, train, LOSS, ranks=ranks)


def num_bytes(tensors: list[torch.Tensor]) -> int:
    """Of distinct storages: parameters may be views of one buffer."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage() for tensor in tensors}
    return sum(storage.nbytes() for storage in storages.values())


def state_after_a_step(train: Train) -> tuple[int, int, int, int]:
    """This rank's stage, and bytes of its weights, gradient buffers and optimizer (masters and moments)."""
    learner = learner_of(train)
    batch = batch_of(samples_of(1), num_data_ranks=learner.num_data_ranks, pad_multiple=learner.pad_multiple)
    learner.train_step(batch)
    weights = [weight for chunk in learner.model.chunks for weight in chunk.parameters()]
    buffers = [buffer.grad_data for chunk in learner.model.wrapped for buffer in chunk.buffers]
    optimizer = []
    for adam in learner.optimizer.adam.chained_optimizers:
        for weight, state in adam.optimizer.state.items():
            optimizer += [state["exp_avg"], state["exp_avg_sq"]]
            optimizer += [weight] if train.precision == "bf16" else []
    return learner.ranks.pipeline, num_bytes(weights), num_bytes(buffers), num_bytes(optimizer)


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_weights_gradients_and_optimizer_state(
    layout: dict[str, Any], precision: Literal["bf16", "fp32"], tmp_path: Path
) -> None:
    """Equal but for the distributed optimizer's padding of its buffers, and a rank's share of them."""
    train = train_section(precision, **layout)
    expected = training_memory(SHAPE, train, num_micro_batches=2, weights_in="as_trained")
    found_R = run_ranks(train.parallel.world_size, state_after_a_step, train, folder=tmp_path)
    slack = 0.02 if train.parallel.distributed_optimizer else 0
    for stage, weights, gradients, _ in found_R:
        assert weights == pytest.approx(expected[stage].weights, rel=slack, abs=0)
        assert gradients == pytest.approx(expected[stage].gradients, rel=slack, abs=0)
    whole = sum(optimizer for *_, optimizer in found_R)
    wanted = sum(expected[stage].optimizer for stage, *_ in found_R)
    assert whole == pytest.approx(wanted, rel=slack, abs=0)


def kept_for_backward(train: Train, shape: ModelShape) -> int:
    """Bytes of numbers that the forward pass of a row keeps, parameters left out."""
    from apriel_mcore.mcore import parallel, step

    learner = learner_of(train, shape)
    weights = {w.untyped_storage().data_ptr() for chunk in learner.model.chunks for w in chunk.parameters()}
    text = Sample(
        domain="",
        prompt_T=(1,),
        response_T=(2,) * (ROW - 1),
        logprobs_T=(0.0,) * (ROW - 1),
        advantage=1.0,
        version=0,
    )
    kept: list[torch.Tensor] = []
    sizes = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights and tensor.is_floating_point():
            kept.append(tensor)
        return tensor

    def loss_of(row: Any, found: Any) -> tuple[torch.Tensor, torch.Tensor]:
        sizes.append(num_bytes(kept))
        return found.logprobs_N.sum(), found.logprobs_N.detach()

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        rows = learner._pack([[text]], learner.pad_multiple)
        step._run(learner.model, rows, loss_of, forward_only=False)
    parallel.stop()
    return sizes[0]


def kept_by_one_layer(recompute: Literal["none", "selective", "full"]) -> float:
    """Bytes, of one row, as the difference between models of four layers and of two."""
    train = msgspec.structs.replace(train_section("bf16"), recompute=recompute)
    sizes = [kept_for_backward(train, msgspec.structs.replace(SHAPE, num_layers=n)) for n in (2, 4)]
    return (sizes[1] - sizes[0]) / 2


def test_recomputation_keeps_what_the_formula_says(tmp_path: Path) -> None:
    """Exactly for full; the CPU's attention and norms keep float32 tensors of their own.

    Between none and selective lies the feed-forward part. The CPU's activation, which is not fused, keeps two
    tensors of its width more than the formula's three, and the norm stands outside of what is recomputed.
    """
    kept = {
        kind: run_ranks(1, kept_by_one_layer, kind, folder=tmp_path)[0]
        for kind in ("none", "selective", "full")
    }
    full = msgspec.structs.replace(train_section("bf16"), recompute="full")
    assert kept["full"] == ROW * kept_per_token(SHAPE, full, in_fp8=False)
    assert kept["none"] - kept["selective"] == ROW * 2 * 5 * SHAPE.ffn_size
