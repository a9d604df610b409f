"""The learner's other doors: a Hugging Face folder comes in through the bridge, the CPU back end refuses to
hide a GPU, a wrong world size is a user's error, and a step that cannot be trusted is one too."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from apriel_mcore.bench.ranks import run_ranks
from apriel_mcore.errors import ConfigError, InputError, TrainingError
from apriel_mcore.types import Row
from tests.mcore.llama import (
    LOSS,
    SHAPE,
    batch_of,
    hf_model,
    reference_logprobs,
    samples_of,
    train_section,
)

pytestmark = pytest.mark.engine

TEXT = [5, 9, 3, 77, 100, 4, 2, 50, 51]


def learner_at(layout: dict[str, Any], **section: Any) -> Any:
    from apriel_mcore.mcore import parallel
    from apriel_mcore.mcore.learner import MegatronLearner

    train = msgspec.structs.replace(train_section(**layout), **section)
    ranks = parallel.start(train, seed=3, timeout_s=60)
    return MegatronLearner(SHAPE, train, LOSS, ranks=ranks)


def load_and_score(layout: dict[str, Any], folder: Path) -> list[list[float]]:
    """Log-probs after loading, and after a step of empty rows: decay alone moves the weights."""
    learner = learner_at(layout)
    learner.load_hf(folder)
    before = learner.logprobs(TEXT)
    empty = batch_of(samples_of(0, count=2), num_data_ranks=1, pad_multiple=learner.pad_multiple)
    stats = learner.train_step(msgspec.structs.replace(empty, rows=((Row(sample_ids=(), num_tokens=0),),)))
    assert (stats.loss, stats.grad_norm, stats.tokens_trained) == (0.0, 0.0, 0)
    return [before, learner.logprobs(TEXT)]


@pytest.mark.parametrize(
    "layout",
    [{}, {"tensor": 2, "pipeline": 2}, {"pipeline": 2, "virtual_pipeline": 2}, {"context": 2}],
    ids=["one_rank", "tensor2_pipeline2", "virtual_pipeline2", "context2"],
)
def test_loads_a_hugging_face_folder(layout: dict[str, Any], tmp_path: Path) -> None:
    torch.set_num_threads(1)
    model = hf_model()
    model.save_pretrained(tmp_path / "hf")
    with torch.no_grad():
        wanted = reference_logprobs(model, TEXT).tolist()
    world = train_section(**layout).parallel.world_size
    for found in run_ranks(world, load_and_score, layout, tmp_path / "hf", folder=tmp_path):
        assert found[0] == pytest.approx(wanted, abs=2e-5)
        assert found[1] != found[0] and found[1] == pytest.approx(wanted, abs=1e-2)


def recompute_changes_nothing() -> None:
    plain = learner_at({})
    found = []
    for recompute in ("none", "selective", "full"):
        from apriel_mcore.mcore.learner import MegatronLearner

        train = msgspec.structs.replace(train_section(), recompute=recompute)
        torch.manual_seed(5)
        learner = MegatronLearner(SHAPE, train, LOSS, ranks=plain.ranks)
        batch = batch_of(samples_of(1), num_data_ranks=1, pad_multiple=1)
        learner.train_step(batch)
        stats = learner.train_step(batch)
        found.append(msgspec.structs.replace(stats, seconds=0.0))
    assert found[0] == found[1] == found[2]


def test_recomputation_changes_nothing(tmp_path: Path) -> None:
    run_ranks(1, recompute_changes_nothing, folder=tmp_path)


def refuse_a_bad_step() -> None:
    learner = learner_at({})
    good = batch_of(samples_of(1), num_data_ranks=1, pad_multiple=1)
    bad = tuple(msgspec.structs.replace(sample, advantage=float("nan")) for sample in good.samples)
    before = [weight.clone() for chunk in learner.chunks() for weight in chunk.values()]
    with pytest.raises(TrainingError, match="step 1: the loss is nan; the weights are unchanged"):
        learner.train_step(msgspec.structs.replace(good, samples=bad))
    after = [weight for chunk in learner.chunks() for weight in chunk.values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert learner.step == 0


def test_a_step_without_a_number_is_refused(tmp_path: Path) -> None:
    run_ranks(1, refuse_a_bad_step, folder=tmp_path)


def pack_differently() -> str:
    learner = learner_at({"data": 2})
    samples = samples_of(1)
    if learner.ranks.world == 1:
        samples = [msgspec.structs.replace(samples[0], advantage=0.25), *samples[1:]]
    batch = batch_of(samples, num_data_ranks=2, pad_multiple=1)
    try:
        learner._check_same_batch(batch)
    except TrainingError as error:
        return str(error)
    return ""


def test_a_rank_that_packed_another_batch_says_so(tmp_path: Path) -> None:
    first, second = run_ranks(2, pack_differently, folder=tmp_path)
    assert first == ""
    assert "step 1: this rank packed batch" in second


def refuse_what_does_not_fit() -> None:
    from apriel_mcore.mcore import cpu_backend, parallel

    with pytest.raises(ConfigError, match="needs 2 ranks, found 1"):
        parallel.start(train_section(data=2), seed=0)
    torch.cuda.is_available = lambda: True
    with pytest.raises(InputError, match="sees a CUDA device"):
        cpu_backend.enter()


def test_refuses_a_wrong_world_and_a_hidden_gpu(tmp_path: Path) -> None:
    run_ranks(1, refuse_what_does_not_fit, folder=tmp_path)


def same_bytes() -> list[bytes]:
    from apriel_mcore.mcore import parallel

    ranks = parallel.start(train_section(data=2), seed=0, timeout_s=60)
    own = f"of rank {ranks.world}".encode() * (ranks.world + 1)
    return [parallel.same_on_all_ranks(own), parallel.same_on_all_ranks(b"")]


def test_the_first_ranks_bytes_reach_all(tmp_path: Path) -> None:
    assert run_ranks(2, same_bytes, folder=tmp_path) == [[b"of rank 0", b""]] * 2
