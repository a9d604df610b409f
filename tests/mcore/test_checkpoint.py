"""A checkpoint continues the run, at its own layout exactly and at any other within rounding; a broken save
is no checkpoint; saving leaves no process behind."""

import os
from pathlib import Path
from typing import Any, Literal

import msgspec
import psutil
import pytest
import torch

from apriel_mcore.bench.ranks import run_ranks
from apriel_mcore.bridge.shape import ModelShape
from apriel_mcore.errors import InputError
from apriel_mcore.types import StepStats
from tests.mcore.llama import (
    LOSS,
    SHAPE,
    TEMPERATURE,
    batch_of,
    hf_model,
    load_by_hand,
    samples_of,
    train_section,
)

pytestmark = pytest.mark.engine

type Precision = Literal["fp32", "bf16"]

LOOP = {"journal": 17, "sampler": {"math": [1, 2]}}
PLAIN = {"tensor": 2, "pipeline": 2}
SHARDED = {"data": 2, "distributed_optimizer": True}
OVERLAP = {**SHARDED, "overlap_grad_reduce": True, "overlap_param_gather": True}
CASES = [
    pytest.param("fp32", PLAIN, PLAIN, id="plain_same"),
    pytest.param("fp32", PLAIN, {}, id="plain_to_one_rank"),
    pytest.param("fp32", PLAIN, {"pipeline": 2, "virtual_pipeline": 2}, id="plain_to_virtual_pipeline"),
    pytest.param("fp32", SHARDED, {**SHARDED, "data": 1, "tensor": 2}, id="sharded_to_tensor2"),
    pytest.param("fp32", OVERLAP, OVERLAP, id="overlap_same"),
    pytest.param("bf16", SHARDED, SHARDED, id="bf16_sharded_same"),
    pytest.param("bf16", {"tensor": 2}, {"data": 2}, id="bf16_plain_to_data2"),
]


def learner_at(precision: Precision, layout: dict[str, Any], shape: ModelShape = SHAPE) -> Any:
    from apriel_mcore.mcore import parallel
    from apriel_mcore.mcore.learner import MegatronLearner

    section = train_section(precision, **layout)
    ranks = parallel.start(section, seed=3, timeout_s=60)
    return MegatronLearner(shape, section, LOSS, ranks=ranks, temperature=TEMPERATURE)


def step(learner: Any, number: int) -> StepStats:
    batch = batch_of(
        samples_of(number), num_data_ranks=learner.num_data_ranks, pad_multiple=learner.pad_multiple
    )
    return msgspec.structs.replace(learner.train_step(batch), seconds=0.0, packing_fill=0.0)


def save_and_continue(precision: Precision, layout: dict[str, Any], root: Path) -> list[StepStats]:
    from apriel_mcore.mcore import checkpoint

    learner = learner_at(precision, layout)
    load_by_hand(learner, hf_model().state_dict())
    for number in range(2):
        step(learner, number)
    checkpoint.save(checkpoint.folder_of(root, learner.step), learner, LOOP)
    assert not psutil.Process().children()
    return [step(learner, number) for number in (2, 3)]


def load_and_continue(precision: Precision, layout: dict[str, Any], root: Path) -> list[StepStats]:
    from apriel_mcore.mcore import checkpoint

    learner = learner_at(precision, layout)
    folder = checkpoint.latest(root)
    assert folder is not None and folder == checkpoint.folder_of(root, 2)
    assert checkpoint.load(folder, learner) == LOOP
    assert learner.step == 2
    return [step(learner, number) for number in (2, 3)]


@pytest.mark.parametrize(("precision", "first", "second"), CASES)
def test_the_run_continues(
    precision: Precision, first: dict[str, Any], second: dict[str, Any], tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    root = tmp_path / "checkpoints"
    sizes = [train_section(**layout).parallel.world_size for layout in (first, second)]
    wanted = run_ranks(sizes[0], save_and_continue, precision, first, root, folder=tmp_path)[0]
    found_R = run_ranks(sizes[1], load_and_continue, precision, second, root, folder=tmp_path)
    for found in found_R:
        if first == second:
            assert found == wanted
        else:
            tolerance = 1e-5 if precision == "fp32" else 2e-2
            for ours, theirs in zip(found, wanted, strict=True):
                assert ours.loss == pytest.approx(theirs.loss, rel=tolerance, abs=tolerance)
                assert ours.grad_norm == pytest.approx(theirs.grad_norm, rel=tolerance)
                assert ours.lr == theirs.lr


BIASED = msgspec.structs.replace(SHAPE, qkv_bias=True, qk_norm=True)
TEXT = [5, 9, 3, 77, 100, 4, 2, 50, 51]


def save_biased(root: Path) -> list[float]:
    """Two steps, so that biases are no longer zero and norms no longer one."""
    from apriel_mcore.mcore import checkpoint

    learner = learner_at("fp32", PLAIN, BIASED)
    before = learner.logprobs(TEXT)
    for number in range(2):
        step(learner, number)
    checkpoint.save(checkpoint.folder_of(root, learner.step), learner, LOOP)
    assert learner.logprobs(TEXT) != pytest.approx(before, abs=1e-3)
    return learner.logprobs(TEXT)


def load_biased(root: Path) -> list[float]:
    from apriel_mcore.mcore import checkpoint

    learner = learner_at("fp32", {"tensor": 4}, BIASED)
    checkpoint.load(checkpoint.folder_of(root, 2), learner)
    return learner.logprobs(TEXT)


def test_biases_and_head_norms_change_layout_too(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    root = tmp_path / "checkpoints"
    wanted = run_ranks(4, save_biased, root, folder=tmp_path)[0]
    for found in run_ranks(4, load_biased, root, folder=tmp_path):
        assert found == pytest.approx(wanted, abs=1e-5)


def complete_and_broken(root: Path) -> None:
    from apriel_mcore.mcore import checkpoint

    assert checkpoint.latest(root) is None
    for number in (2, 10, 9):
        folder = checkpoint.folder_of(root, number)
        folder.mkdir(parents=True)
        (folder / checkpoint.STATE_FILE).write_text("{}")
    (root / "step_000011.partial").mkdir()
    (root / "step_000012").mkdir()  # no state: not ours
    assert checkpoint.latest(root) == root / "step_000010"
    with pytest.raises(InputError, match=r"step_000012: not a complete checkpoint"):
        checkpoint.load(root / "step_000012", learner_at("fp32", {}))
    checkpoint.prune(root, keep=2)
    assert sorted(os.listdir(root)) == ["step_000009", "step_000010", "step_000012"]


def test_only_complete_checkpoints_count(tmp_path: Path) -> None:
    run_ranks(1, complete_and_broken, tmp_path / "checkpoints", folder=tmp_path)
