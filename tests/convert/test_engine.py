"""The real trainer loads what was converted, at any layout, and says what transformers says."""

from pathlib import Path
from typing import Any

import pytest
import torch

from apriel_mcore.bench.ranks import run_ranks
from apriel_mcore.config.schema import Parallel
from apriel_mcore.convert import parity
from apriel_mcore.errors import BridgeError
from tests.convert.conftest import Convert
from tests.convert.folders import assert_equal, read_tensors, write_tensors
from tests.mcore.llama import hf_model, reference_logprobs, train_section
from tests.mcore.test_checkpoint import learner_at, save, step

pytestmark = pytest.mark.engine

TEXT = [5, 9, 3, 77, 100, 4, 2, 50, 51]
LAYOUTS = [
    pytest.param({}, id="one"),
    pytest.param({"tensor": 2, "pipeline": 2}, id="tp2pp2"),
    pytest.param({"pipeline": 2, "virtual_pipeline": 2}, id="vpp2"),
]


def load_and_score(layout: dict[str, Any], checkpoint: Path) -> list[float]:
    from apriel_mcore.mcore.checkpoint import load_weights

    learner = learner_at("fp32", layout)
    load_weights(checkpoint, learner)
    return learner.logprobs(TEXT)


@pytest.mark.parametrize("loaded", LAYOUTS)
@pytest.mark.parametrize("saved", LAYOUTS)
def test_the_trainer_loads_it(
    convert: Convert, tmp_path: Path, saved: dict[str, int], loaded: dict[str, Any]
) -> None:
    torch.set_num_threads(1)
    model = hf_model()
    model.save_pretrained(tmp_path / "hf")
    convert.to_mcore(tmp_path / "hf", tmp_path / "mcore", parallel=Parallel(**saved))
    with torch.no_grad():
        wanted = reference_logprobs(model, TEXT).tolist()
    world = train_section(**loaded).parallel.world_size
    for found in run_ranks(world, load_and_score, loaded, tmp_path / "mcore", folder=tmp_path):
        assert found == pytest.approx(wanted, abs=2e-5)


def train_and_save(layout: dict[str, Any], folder: Path, root: Path) -> list[float]:
    learner = learner_at("bf16", layout)
    learner.load_hf(folder)
    step(learner, 0)
    save(root, learner)
    return learner.logprobs(TEXT)


@pytest.mark.parametrize(
    "layout",
    [{"tensor": 2, "pipeline": 2}, {"data": 2, "distributed_optimizer": True}],
    ids=["tp2pp2", "sharded_optimizer"],
)
def test_a_checkpoint_of_training_becomes_a_folder(
    convert: Convert, tmp_path: Path, layout: dict[str, Any]
) -> None:
    """The folder loads into a trainer again, with the log-probs of the one that was saved."""
    torch.set_num_threads(1)
    model = hf_model()
    model.save_pretrained(tmp_path / "hf")
    world = train_section(**layout).parallel.world_size
    wanted = run_ranks(world, train_and_save, layout, tmp_path / "hf", tmp_path, folder=tmp_path)[0]
    convert.to_hf(tmp_path / "step_000001", tmp_path / "back", like=tmp_path / "hf")
    tensors = read_tensors(tmp_path / "back")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    moved = {
        name for name, weight in model.named_parameters() if not torch.equal(tensors[name], weight.bfloat16())
    }
    assert "model.layers.0.self_attn.q_proj.weight" in moved, "the step's weights, not those before it"
    convert.to_mcore(tmp_path / "back", tmp_path / "mcore")
    (found,) = run_ranks(1, load_and_score_bf16, tmp_path / "mcore", folder=tmp_path)
    assert found == pytest.approx(wanted, abs=3e-2)


def load_and_score_bf16(checkpoint: Path) -> list[float]:
    from apriel_mcore.mcore.checkpoint import load_weights

    learner = learner_at("bf16", {})
    load_weights(checkpoint, learner)
    return learner.logprobs(TEXT)


def test_the_probe_passes_and_tells_a_wrong_weight(convert: Convert, tmp_path: Path) -> None:
    hf_model().save_pretrained(tmp_path / "hf")
    made = convert.to_mcore(tmp_path / "hf", tmp_path / "mcore", probe=True)
    assert made.parity.status == "passed"
    assert 0 <= made.parity.mean_abs_diff <= made.parity.max_abs_diff < 1e-5
    tensors = read_tensors(tmp_path / "hf")
    key = tensors["model.layers.3.self_attn.k_proj.weight"]
    key[[0, 16]] = key[[16, 0]].clone()  # two rows of different heads change places
    write_tensors(tmp_path / "hf", tensors, 1)
    with pytest.raises(BridgeError, match="log-probs differ by up to"):
        parity.check(tmp_path / "mcore", tmp_path / "hf", num_elements=1, wanted=True)


def test_the_probe_speaks_of_multimodal_folders_too(convert: Convert, tmp_path: Path) -> None:
    from transformers import LlavaConfig, LlavaForConditionalGeneration, PixtralVisionConfig

    text = hf_model().config
    vision = PixtralVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
    )
    config = LlavaConfig(
        vision_config=vision, text_config=text, tie_word_embeddings=True, image_token_index=3
    )
    torch.manual_seed(0)
    LlavaForConditionalGeneration(config).save_pretrained(tmp_path / "hf")
    made = convert.to_mcore(tmp_path / "hf", tmp_path / "mcore", probe=True)
    assert made.parity.status == "passed"
    assert made.dropped
    back = convert.to_hf(tmp_path / "mcore", tmp_path / "back", probe=True)
    assert back.parity.status == "passed"
    convert.to_mcore(tmp_path / "back", tmp_path / "again")
    convert.to_hf(tmp_path / "again", tmp_path / "third")
    assert_equal(read_tensors(tmp_path / "third"), read_tensors(tmp_path / "back"))


def test_the_probe_is_skipped_where_memory_is_short(
    convert: Convert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hf_model().save_pretrained(tmp_path / "hf")
    monkeypatch.setattr(parity, "_available_bytes", lambda: 1 << 30)
    made = convert.to_mcore(tmp_path / "hf", tmp_path / "mcore", probe=True)
    assert made.parity.status == "skipped"
    assert "GB of memory, 1.1 GB are available" in made.parity.reason
