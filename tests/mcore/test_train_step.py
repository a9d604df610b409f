"""Five optimizer steps on the same batches: every layout must reach the losses, gradient norms and weights
of a plain PyTorch implementation of the step on Hugging Face's Llama."""

from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
import torch

from apriel_mcore.bench.ranks import run_ranks
from apriel_mcore.bridge.shape import ModelShape
from apriel_mcore.types import Batch, StepStats
from tests.mcore.llama import (
    LOSS,
    SHAPE,
    batch_of,
    families_of,
    hf_model,
    load_by_hand,
    reference_logprobs,
    reference_steps,
    samples_of,
    shard_by_hand,
    train_section,
)

pytestmark = pytest.mark.engine

NUM_STEPS = 5
TEXT = [5, 9, 3, 77, 100, 4, 2, 50, 51]
LAYOUTS: dict[str, dict[str, Any]] = {
    "one_rank": {},
    "tensor2": {"tensor": 2},
    "pipeline2": {"pipeline": 2},
    "tensor2_pipeline2": {"tensor": 2, "pipeline": 2},
    "data2": {"data": 2},
    "context2": {"context": 2},
    "virtual_pipeline2": {"pipeline": 2, "virtual_pipeline": 2},
    "sequence": {"tensor": 2, "sequence": True},
    "distributed_optimizer": {"data": 2, "distributed_optimizer": True},
    "overlap": {
        "data": 2,
        "distributed_optimizer": True,
        "overlap_grad_reduce": True,
        "overlap_param_gather": True,
    },
    "tensor2_context2_sequence": {"tensor": 2, "context": 2, "sequence": True},
    "pipeline2_context2": {"pipeline": 2, "context": 2},
}


NO_CONTEXT = [name for name, layout in LAYOUTS.items() if "context" not in layout]


class Reference(msgspec.Struct):
    """What plain PyTorch finds."""

    shape: ModelShape
    shared: bool
    """On answers that share prompts; here each has its own copy."""
    before: dict[str, torch.Tensor]
    after: dict[str, torch.Tensor]
    steps: list[tuple[float, float]]
    logprobs_T: list[float]


class Found(msgspec.Struct):
    """What one rank finds."""

    stats: list[StepStats]
    logprobs_T: list[float]
    weight_error: float
    """Largest norm of (found - wanted) over the norm of what was wanted, of a parameter."""
    update_error: float
    """The same over the norm of the whole update."""


def batch_of_step(step: int, *, shared: bool, num_data_ranks: int, pad_multiple: int) -> Batch:
    if shared:
        return families_of(step, num_data_ranks=num_data_ranks, pad_multiple=pad_multiple)
    return batch_of(samples_of(step), num_data_ranks=num_data_ranks, pad_multiple=pad_multiple)


def reference_of(shape: ModelShape, *, shared: bool = False) -> Reference:
    torch.set_num_threads(1)
    model = hf_model(shape)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    batches = [
        batch_of_step(step, shared=shared, num_data_ranks=1, pad_multiple=1) for step in range(NUM_STEPS)
    ]
    steps = reference_steps(model, batches)
    with torch.no_grad():
        logprobs_T = reference_logprobs(model, TEXT).tolist()
    return Reference(shape, shared, before, dict(model.state_dict()), steps, logprobs_T)


@pytest.fixture(scope="module")
def tied() -> Reference:
    return reference_of(SHAPE)


@pytest.fixture(scope="module")
def families() -> Reference:
    return reference_of(SHAPE, shared=True)


@pytest.fixture(scope="module")
def untied() -> Reference:
    return reference_of(msgspec.structs.replace(SHAPE, tied=False))


def train(reference: Reference, layout: dict[str, Any], precision: Literal["fp32", "bf16"] = "fp32") -> Found:
    """Runs on every rank."""
    from apriel_mcore.mcore import parallel
    from apriel_mcore.mcore.learner import MegatronLearner

    section = train_section(precision, **layout)
    ranks = parallel.start(section, seed=3, timeout_s=60)
    learner = MegatronLearner(reference.shape, section, LOSS, ranks=ranks)
    load_by_hand(learner, reference.before)
    stats = []
    for step in range(NUM_STEPS):
        batch = batch_of_step(
            step,
            shared=reference.shared,
            num_data_ranks=learner.num_data_ranks,
            pad_multiple=learner.pad_multiple,
        )
        stats.append(learner.train_step(batch))
    assert learner.step == NUM_STEPS
    weight_error, update_error = errors_of(learner, reference)
    found = Found(stats, learner.logprobs(TEXT), weight_error, update_error)
    parallel.stop()
    return found


def errors_of(learner: Any, reference: Reference) -> tuple[float, float]:
    weight_errors, update_errors = [], []
    sets = zip(
        learner.chunks(),
        shard_by_hand(learner, reference.before),
        shard_by_hand(learner, reference.after),
        strict=True,
    )
    for chunk, before, after in sets:
        for name, weight in chunk.items():
            rows = weight.shape[0]
            if "word_embeddings" in name or "output_layer" in name:  # padding rows only decay
                first = learner.ranks.tensor * rows
                rows = min(rows, learner.model.shape.vocab_size - first)
            error = (weight.detach() - after[name])[:rows].norm()
            weight_errors.append((error / after[name][:rows].norm()).item())
            update_errors.append((error / (after[name] - before[name])[:rows].norm()).item())
    return max(weight_errors), max(update_errors)


def check(found_R: list[Found], reference: Reference) -> None:
    losses, norms = zip(*reference.steps, strict=True)
    for found in found_R:
        assert [stats.loss for stats in found.stats] == pytest.approx(
            losses, rel=1e-5, abs=3e-6
        )  # terms near 1 cancel
        assert [stats.grad_norm for stats in found.stats] == pytest.approx(norms, rel=1e-5)
        assert found.weight_error < 1e-5
        assert found.update_error < 1e-3
        assert found.logprobs_T == pytest.approx(reference.logprobs_T, rel=1e-4, abs=1e-5)
    first = found_R[0]
    for found in found_R[1:]:
        same = [msgspec.structs.replace(stats, seconds=0.0) for stats in found.stats]
        assert same == [msgspec.structs.replace(stats, seconds=0.0) for stats in first.stats]
        assert found.logprobs_T == first.logprobs_T


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_every_layout_takes_the_reference_steps(
    layout: dict[str, Any], tied: Reference, tmp_path: Path
) -> None:
    world = train_section(**layout).parallel.world_size
    check(run_ranks(world, train, tied, layout, folder=tmp_path), tied)


@pytest.mark.parametrize("name", NO_CONTEXT)
def test_a_prompt_computed_once_counts_for_all_its_answers(
    name: str, families: Reference, tmp_path: Path
) -> None:
    layout = LAYOUTS[name]
    world = train_section(**layout).parallel.world_size
    check(run_ranks(world, train, families, layout, folder=tmp_path), families)


@pytest.mark.parametrize("name", ["one_rank", "tensor2_pipeline2"])
def test_untied_head_too(name: str, untied: Reference, tmp_path: Path) -> None:
    layout = LAYOUTS[name]
    world = train_section(**layout).parallel.world_size
    check(run_ranks(world, train, untied, layout, folder=tmp_path), untied)


@pytest.mark.parametrize("name", ["one_rank", "distributed_optimizer"])
def test_bf16_stays_near(name: str, tied: Reference, tmp_path: Path) -> None:
    """Masters that did not take over the loaded weights would be off by all of the model."""
    layout = LAYOUTS[name]
    world = train_section(**layout).parallel.world_size
    for found in run_ranks(world, train, tied, layout, "bf16", folder=tmp_path):
        losses = [loss for loss, _ in tied.steps]
        assert [stats.loss for stats in found.stats] == pytest.approx(losses, abs=0.05)
        assert found.weight_error < 5e-3
