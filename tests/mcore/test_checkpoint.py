"""A checkpoint continues the run, at its own layout exactly and at any other within rounding; a broken save
is no checkpoint; saving leaves no process behind."""

import hashlib
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import msgspec
import psutil
import pytest
import torch

from apriel_mcore import checkpoint_folder
from apriel_mcore.bench.ranks import run_ranks
from apriel_mcore.bridge.shape import ModelShape
from apriel_mcore.checkpoints import newest_healthy
from apriel_mcore.errors import InputError
from apriel_mcore.types import StepStats
from tests.mcore.llama import (
    LOSS,
    SHAPE,
    batch_of,
    hf_model,
    load_by_hand,
    samples_of,
    train_section,
)

pytestmark = pytest.mark.engine

type Precision = Literal["fp32", "bf16"]

type Outcome = tuple[list[StepStats], str]

LOOP = {"journal": 17, "sampler": {"math": [1, 2]}}
PLAIN = {"tensor": 2, "pipeline": 2}
SHARDED = {"data": 2, "distributed_optimizer": True}
OVERLAP = {**SHARDED, "overlap_grad_reduce": True, "overlap_param_gather": True}
VIRTUAL = {"pipeline": 2, "virtual_pipeline": 2}
STAGED = {"pipeline": 2, "distributed_optimizer": True}
CONTEXT = {"context": 2, "tensor": 2, "sequence": True}
CASES = [
    pytest.param("fp32", PLAIN, PLAIN, id="plain_same"),
    pytest.param("fp32", PLAIN, {}, id="plain_to_one_rank"),
    pytest.param("fp32", PLAIN, {"pipeline": 2, "virtual_pipeline": 2}, id="plain_to_virtual_pipeline"),
    pytest.param("fp32", SHARDED, {**SHARDED, "data": 1, "tensor": 2}, id="sharded_to_tensor2"),
    pytest.param("fp32", OVERLAP, OVERLAP, id="overlap_same"),
    pytest.param("fp32", VIRTUAL, VIRTUAL, id="virtual_pipeline_same"),
    pytest.param("fp32", CONTEXT, CONTEXT, id="context_sequence_same"),
    pytest.param("bf16", SHARDED, SHARDED, id="bf16_sharded_same"),
    pytest.param("bf16", {"tensor": 2}, {"data": 2}, id="bf16_plain_to_data2"),
    # A tied head on the last stage has a bucket of its own, behind another one's padding.
    pytest.param("fp32", STAGED, STAGED, id="pipeline_sharded_same"),
    pytest.param("bf16", {**SHARDED, **VIRTUAL}, {**SHARDED, "tensor": 2}, id="virtual_sharded_to_tensor2"),
]


def learner_at(precision: Precision, layout: dict[str, Any], shape: ModelShape = SHAPE) -> Any:
    from apriel_mcore.mcore import parallel
    from apriel_mcore.mcore.learner import MegatronLearner

    section = train_section(precision, **layout)
    ranks = parallel.start(section, seed=3, timeout_s=60)
    return MegatronLearner(shape, section, LOSS, ranks=ranks)


def step(learner: Any, number: int) -> StepStats:
    batch = batch_of(
        samples_of(number), num_data_ranks=learner.num_data_ranks, pad_multiple=learner.pad_multiple
    )
    return msgspec.structs.replace(learner.train_step(batch), seconds=0.0, packing_fill=0.0)


def state_digest(learner: Any) -> str:
    """Of every bit of this rank's weights, master weights and moments."""
    tensors = [tensor for chunk in learner.chunks() for _, tensor in sorted(chunk.items())]
    for optimizer in learner.optimizer.adam.chained_optimizers:
        adam = optimizer.optimizer
        for parameter in (one for group in adam.param_groups for one in group["params"]):
            tensors += [parameter, *(adam.state[parameter][key] for key in ("exp_avg", "exp_avg_sq", "step"))]
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def fail(message: str) -> None:
    raise AssertionError(message)


def saver_of(root: Path, learner: Any, tell: Callable[[str], None] = fail) -> Any:
    from apriel_mcore.mcore.background_save import BackgroundSave

    return BackgroundSave(root, learner, ranks=learner.ranks, tell=tell)


def save(root: Path, learner: Any) -> None:
    saver = saver_of(root, learner)
    saver.begin(learner.step, LOOP)
    assert saver.advance(wait=True)
    saver.close()


def save_and_continue(precision: Precision, layout: dict[str, Any], root: Path) -> Outcome:
    """Two steps, a save whose bytes are held back, two more steps meanwhile."""
    from apriel_mcore.mcore.staged import Staged

    learner = learner_at(precision, layout)
    load_by_hand(learner, hf_model().state_dict())
    for number in range(2):
        step(learner, number)
    saver = saver_of(root, learner)
    write, gate = Staged.write, threading.Event()
    Staged.write = lambda staged: (gate.wait(), write(staged))[1]
    saver.begin(learner.step, LOOP)
    continued = [step(learner, number) for number in (2, 3)], state_digest(learner)
    assert not saver.advance(wait=False) and not checkpoint_folder.complete(root), "nothing is written yet"
    gate.set()
    assert saver.advance(wait=True)
    saver.close()
    assert not psutil.Process().children()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("checkpoint")]
    return continued


def load_and_continue(precision: Precision, layout: dict[str, Any], root: Path) -> Outcome:
    """The same two steps in a new process."""
    from apriel_mcore.mcore import checkpoint

    learner = learner_at(precision, layout)
    folder = newest_healthy(root, learner.ranks, fail)
    assert folder is not None and folder == checkpoint_folder.folder_of(root, 2)
    assert checkpoint.load(folder, learner) == LOOP
    assert learner.step == 2
    return [step(learner, number) for number in (2, 3)], state_digest(learner)


@pytest.mark.parametrize(("precision", "first", "second"), CASES)
def test_the_run_continues(
    precision: Precision, first: dict[str, Any], second: dict[str, Any], tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    root = tmp_path / "checkpoints"
    sizes = [train_section(**layout).parallel.world_size for layout in (first, second)]
    wanted_R = run_ranks(sizes[0], save_and_continue, precision, first, root, folder=tmp_path)
    found_R = run_ranks(sizes[1], load_and_continue, precision, second, root, folder=tmp_path)
    if first == second:
        assert found_R == wanted_R, "every bit, on every rank"
    else:
        for found, _ in found_R:
            tolerance = 1e-5 if precision == "fp32" else 2e-2
            for ours, theirs in zip(found, wanted_R[0][0], strict=True):
                assert ours.loss == pytest.approx(theirs.loss, rel=tolerance, abs=tolerance)
                assert ours.grad_norm == pytest.approx(theirs.grad_norm, rel=tolerance)
                assert ours.lr == theirs.lr


def test_the_distributed_optimizer_follows_another_precision(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    root, layout = tmp_path / "checkpoints", {"distributed_optimizer": True}
    ((wanted, _),) = run_ranks(1, save_and_continue, "bf16", layout, root, folder=tmp_path)
    ((found, _),) = run_ranks(1, load_and_continue, "fp32", layout, root, folder=tmp_path)
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.loss == pytest.approx(theirs.loss, abs=2e-2)


def with_small_buckets() -> None:
    """As large models have them: many, each padded at its end."""
    from apriel_mcore.mcore import model

    settings = model._ddp_config
    model._ddp_config = lambda train: replace(settings(train), bucket_size=3000)


def save_from_small_buckets(layout: dict[str, Any], root: Path) -> tuple[int, Outcome]:
    with_small_buckets()
    learner = learner_at("fp32", layout)
    load_by_hand(learner, hf_model().state_dict())
    for number in range(2):
        step(learner, number)
    save(root, learner)
    (optimizer,) = learner.optimizer.adam.chained_optimizers
    padded = [bucket for buffer in optimizer.buffers for bucket in buffer.buckets[:-1]]
    padding = sum(bucket.grad_data.numel() - bucket.numel_unpadded for bucket in padded)
    return padding, ([step(learner, number) for number in (2, 3)], state_digest(learner))


def load_into_small_buckets(layout: dict[str, Any], root: Path) -> Outcome:
    with_small_buckets()
    return load_and_continue("fp32", layout, root)


def test_buckets_with_padding_between_them_continue_exactly(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    root = tmp_path / "checkpoints"
    wanted_R = run_ranks(2, save_from_small_buckets, OVERLAP, root, folder=tmp_path)
    assert all(padding > 0 for padding, _ in wanted_R)
    found_R = run_ranks(2, load_into_small_buckets, OVERLAP, root, folder=tmp_path)
    assert found_R == [outcome for _, outcome in wanted_R]


def save_as_megatron_does(layout: dict[str, Any], root: Path) -> None:
    """With the numbers of one parameter under the name of another."""
    from contextlib import nullcontext

    from apriel_mcore.mcore import checkpoint

    checkpoint._at_their_places = lambda learner: nullcontext()
    save_and_continue("fp32", layout, root)


def load_refused(layout: dict[str, Any], root: Path) -> str:
    from apriel_mcore.mcore import checkpoint

    learner = learner_at("fp32", layout)
    with pytest.raises(InputError) as error:
        checkpoint.load(checkpoint_folder.folder_of(root, 2), learner)
    return str(error.value)


def test_masters_that_are_not_the_weights_stop_every_rank_by_name(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    root = tmp_path / "checkpoints"
    run_ranks(2, save_as_megatron_does, STAGED, root, folder=tmp_path)
    messages = run_ranks(2, load_refused, STAGED, root, folder=tmp_path)
    assert len(set(messages)) == 1
    assert "master weights are not those of the model (rank 1: " in messages[0]
    assert "first 0.decoder." in messages[0]


BIASED = msgspec.structs.replace(SHAPE, qkv_bias=True, qk_norm=True)
TEXT = [5, 9, 3, 77, 100, 4, 2, 50, 51]


def save_biased(root: Path) -> list[float]:
    """Two steps, so that biases are no longer zero and norms no longer one."""
    learner = learner_at("fp32", PLAIN, BIASED)
    before = learner.logprobs(TEXT)
    for number in range(2):
        step(learner, number)
    save(root, learner)
    assert learner.logprobs(TEXT) != pytest.approx(before, abs=1e-3)
    return learner.logprobs(TEXT)


def load_biased(root: Path) -> list[float]:
    from apriel_mcore.mcore import checkpoint

    learner = learner_at("fp32", {"tensor": 4}, BIASED)
    checkpoint.load(checkpoint_folder.folder_of(root, 2), learner)
    return learner.logprobs(TEXT)


def test_biases_and_head_norms_change_layout_too(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    root = tmp_path / "checkpoints"
    wanted = run_ranks(4, save_biased, root, folder=tmp_path)[0]
    for found in run_ranks(4, load_biased, root, folder=tmp_path):
        assert found == pytest.approx(wanted, abs=1e-5)
