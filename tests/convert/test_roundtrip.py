"""There and back, bit by bit, at any layout; what is copied beside the weights; what the report says."""

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from transformers import AutoConfig

from apriel_mcore.bridge import shape as model_shape
from apriel_mcore.config.schema import Parallel
from apriel_mcore.convert import report, workers
from apriel_mcore.convert.digest import digest
from apriel_mcore.errors import ConfigError, InputError
from tests.convert.conftest import Convert
from tests.convert.folders import CONFIG, assert_equal, read_tensors, write_folder, write_tensors

LAYOUTS = [
    pytest.param(Parallel(), id="one"),
    pytest.param(Parallel(tensor=2), id="tp2"),
    pytest.param(Parallel(tensor=4, pipeline=2), id="tp4pp2"),
    pytest.param(Parallel(tensor=2, pipeline=2, virtual_pipeline=2), id="tp2pp2vpp2"),
]


@pytest.mark.parametrize("parallel", LAYOUTS)
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_bits_survive(convert: Convert, tmp_path: Path, parallel: Parallel, tied: bool) -> None:
    tensors = write_folder(tmp_path / "hf", tied=tied, num_files=1 if tied else 3)
    convert.to_mcore(tmp_path / "hf", tmp_path / "mcore", parallel=parallel)
    convert.to_hf(tmp_path / "mcore", tmp_path / "back")
    assert_equal(read_tensors(tmp_path / "back"), tensors)
    for name in ("config.json", "generation_config.json", "tokenizer.json"):
        assert (tmp_path / "back" / name).read_bytes() == (tmp_path / "hf" / name).read_bytes()


def test_a_model_with_one_group_and_odd_sizes(convert: Convert, tmp_path: Path) -> None:
    sizes = {"num_key_value_heads": 1, "num_attention_heads": 3, "hidden_size": 10, "head_dim": 6}
    tensors = write_folder(tmp_path / "hf", **sizes, intermediate_size=7)
    convert.to_mcore(tmp_path / "hf", tmp_path / "mcore")
    convert.to_hf(tmp_path / "mcore", tmp_path / "back")
    assert_equal(read_tensors(tmp_path / "back"), tensors)


def test_files_stay_below_the_limit(convert: Convert, tmp_path: Path) -> None:
    tensors = write_folder(tmp_path / "hf")
    convert.to_mcore(tmp_path / "hf", tmp_path / "mcore")
    convert.to_hf(tmp_path / "mcore", tmp_path / "back", max_file_bytes=50_000)
    assert_equal(read_tensors(tmp_path / "back"), tensors)
    files = sorted((tmp_path / "back").glob("*.safetensors"))
    assert len(files) > 2
    assert all(path.stat().st_size < 50_000 + 8192 for path in files)
    placed = json.loads((tmp_path / "back" / "model.safetensors.index.json").read_text())
    assert placed["weight_map"].keys() == tensors.keys()
    assert placed["metadata"]["total_size"] == sum(tensor.nbytes for tensor in tensors.values())
    convert.to_mcore(tmp_path / "back", tmp_path / "again")  # our own index is true


def test_llava_leaves_as_its_decoder(convert: Convert, tmp_path: Path) -> None:
    tensors = write_folder(tmp_path / "hf", llava=True, num_files=2)
    there = convert.to_mcore(tmp_path / "hf", tmp_path / "mcore")
    assert sorted(there.dropped) == ["multi_modal_projector.a.bias", "vision_tower.patch.weight"]
    convert.to_hf(tmp_path / "mcore", tmp_path / "back")
    assert_equal(read_tensors(tmp_path / "back"), tensors)
    config = json.loads((tmp_path / "back" / "config.json").read_text())
    assert config["model_type"] == "llama" and config["tie_word_embeddings"] is True
    assert model_shape.read(tmp_path / "back") == model_shape.read(tmp_path / "hf")


@pytest.mark.parametrize("decoder_says", [True, False, None])
@pytest.mark.parametrize("wrapper_says", [True, False, None])
def test_llava_is_tied_if_either_level_says_so(
    convert: Convert, tmp_path: Path, wrapper_says: bool | None, decoder_says: bool | None
) -> None:
    """As transformers has it, and the decoder's own config then says it too."""
    tied = bool(wrapper_says or decoder_says)
    tensors = write_folder(tmp_path / "hf", tied=tied, llava=True, num_hidden_layers=1)
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    for level, says in ((config, wrapper_says), (config["text_config"], decoder_says)):
        del level["tie_word_embeddings"]
        if says is not None:
            level["tie_word_embeddings"] = says
    (tmp_path / "hf" / "config.json").write_text(json.dumps(config))
    assert AutoConfig.from_pretrained(tmp_path / "hf").tie_word_embeddings == tied
    convert.to_mcore(tmp_path / "hf", tmp_path / "mcore")
    convert.to_hf(tmp_path / "mcore", tmp_path / "back")
    assert_equal(read_tensors(tmp_path / "back"), tensors)
    assert AutoConfig.from_pretrained(tmp_path / "back").tie_word_embeddings == tied


@pytest.mark.parametrize("llava", [False, True])
def test_a_tied_head_written_out(convert: Convert, tmp_path: Path, llava: bool) -> None:
    """It is the embedding, and leaves as that."""
    tensors = write_folder(tmp_path / "hf", llava=llava, num_hidden_layers=1)
    write_out_head(tmp_path / "hf", tensors["model.embed_tokens.weight"], llava=llava)
    convert.to_mcore(tmp_path / "hf", tmp_path / "mcore")
    convert.to_hf(tmp_path / "mcore", tmp_path / "back")
    assert_equal(read_tensors(tmp_path / "back"), tensors)


def write_out_head(folder: Path, head: torch.Tensor, *, llava: bool) -> None:
    name = "language_model.lm_head.weight" if llava else "lm_head.weight"
    write_tensors(folder, read_tensors(folder) | {name: head.clone()}, 1)


def test_a_tied_head_that_is_not_the_embedding(convert: Convert, tmp_path: Path) -> None:
    head = write_folder(tmp_path / "hf", num_hidden_layers=1)["model.embed_tokens.weight"]
    head[-1, -1] += 1
    write_out_head(tmp_path / "hf", head, llava=False)
    words = "lm_head.weight differs from model.embed_tokens.weight, to which config.json ties it"
    with pytest.raises(InputError, match=words):
        convert.to_mcore(tmp_path / "hf", tmp_path / "mcore")
    assert not list(tmp_path.glob("mcore*"))


def test_llava_whose_decoder_names_no_family(convert: Convert, tmp_path: Path) -> None:
    """A Llama, for transformers and for us, and the result says so."""
    write_folder(tmp_path / "hf", llava=True, num_hidden_layers=1)
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    for key in ("model_type", "architectures"):
        del config["text_config"][key]
    (tmp_path / "hf" / "config.json").write_text(json.dumps(config))
    assert AutoConfig.from_pretrained(tmp_path / "hf").get_text_config().model_type == "llama"
    convert.to_mcore(tmp_path / "hf", tmp_path / "mcore")
    convert.to_hf(tmp_path / "mcore", tmp_path / "back")
    found = json.loads((tmp_path / "back" / "config.json").read_text())
    assert (found["model_type"], found["architectures"]) == ("llama", ["LlamaForCausalLM"])
    assert AutoConfig.from_pretrained(tmp_path / "back").model_type == "llama"


@pytest.mark.parametrize("source", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("target", ["bfloat16", "float32"])
def test_a_cast_is_torchs(convert: Convert, tmp_path: Path, source: torch.dtype, target: Any) -> None:
    tensors = write_folder(tmp_path / "hf", dtype=source)
    made = convert.to_mcore(tmp_path / "hf", tmp_path / "mcore", dtype=target, parallel=Parallel(tensor=2))
    convert.to_hf(tmp_path / "mcore", tmp_path / "back")
    dtype = getattr(torch, target)
    assert_equal(read_tensors(tmp_path / "back"), {name: t.to(dtype) for name, t in tensors.items()})
    for record in made.tensors:
        assert record.digest_before == digest(tensors[record.name])
        assert record.digest_after == digest(tensors[record.name].to(dtype))
    assert json.loads((tmp_path / "back" / "config.json").read_text())["dtype"] == target
    convert.to_hf(tmp_path / "mcore", tmp_path / "fp32", dtype="float32")
    wanted = {name: tensor.to(dtype).float() for name, tensor in tensors.items()}
    assert_equal(read_tensors(tmp_path / "fp32"), wanted)


def test_float16_needs_a_choice(convert: Convert, tmp_path: Path) -> None:
    write_folder(tmp_path / "hf", dtype=torch.float16)
    with pytest.raises(InputError, match="choose --dtype bf16"):
        convert.to_mcore(tmp_path / "hf", tmp_path / "mcore")


def test_the_report_accounts_for_every_tensor(convert: Convert, tmp_path: Path) -> None:
    tensors = write_folder(tmp_path / "hf")
    made = convert.to_mcore(tmp_path / "hf", tmp_path / "mcore", parallel=Parallel(tensor=2, pipeline=2))
    assert made == report.read(tmp_path / "mcore")
    chosen = {"dtype": "bfloat16", "tp": "2", "pp": "2", "vpp": "1"}
    assert made.job.options.items() >= chosen.items()
    assert {record.name: record.sizes for record in made.tensors} == {
        name: tuple(tensor.shape) for name, tensor in tensors.items()
    }
    for record in made.tensors:
        assert record.digest_before == record.digest_after == digest(tensors[record.name])
        assert record.num_bytes == tensors[record.name].nbytes
        assert record.seconds > 0
        assert (tmp_path / "mcore" / record.file).is_file()
    assert made.num_bytes == sum(tensor.nbytes for tensor in tensors.values())
    assert (made.parity.status, made.parity.reason) == ("skipped", "not wanted (--no-probe)")
    assert 0 < sum(record.seconds for record in made.tensors) <= workers.MOST * made.seconds
    assert 100e6 < made.peak_rss_bytes < 100e9


def test_a_second_call_finds_its_work_done(convert: Convert, tmp_path: Path) -> None:
    write_folder(tmp_path / "hf")
    first = convert.to_mcore(tmp_path / "hf", tmp_path / "mcore")
    back = convert.to_hf(tmp_path / "mcore", tmp_path / "back")
    (tmp_path / "back" / "README.md").write_text("a person's own words are not looked at")
    times = times_of(tmp_path)
    again = convert.to_mcore(tmp_path / "hf", tmp_path / "mcore")
    assert again == msgspec.structs.replace(first, found_finished=True)
    again = convert.to_hf(tmp_path / "mcore", tmp_path / "back")
    assert again == msgspec.structs.replace(back, found_finished=True)
    assert times_of(tmp_path) == times
    with pytest.raises(InputError, match="mcore: exists and is not the result of this conversion"):
        convert.to_mcore(tmp_path / "hf", tmp_path / "mcore", parallel=Parallel(tensor=2))


def times_of(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


ONE_TIED_LAYER = {"num_hidden_layers": 1, "tie_word_embeddings": True}
COMPANIONS = {
    "config.json": json.dumps(CONFIG | {"rope_theta": 5e5} | ONE_TIED_LAYER),
    "tokenizer.json": '{"version": "2.0"}',
    "generation_config.json": '{"eos_token_id": 3}',
    "chat_template.jinja": "new",
}


@pytest.mark.parametrize("name", COMPANIONS)
def test_another_config_or_tokenizer_is_another_result(convert: Convert, tmp_path: Path, name: str) -> None:
    """In either direction, and where --like gives them."""
    hf, mcore, back = tmp_path / "hf", tmp_path / "mcore", tmp_path / "back"
    write_folder(hf, num_hidden_layers=1)
    convert.to_mcore(hf, mcore)
    convert.to_hf(mcore, back)
    convert.to_hf(mcore, tmp_path / "like", like=hf)
    for folder in (hf, mcore / "hf"):
        (folder / name).write_text(COMPANIONS[name])
    words = "exists and is not the result of this conversion"
    with pytest.raises(InputError, match="mcore: " + words):
        convert.to_mcore(hf, mcore)
    added = name == "chat_template.jinja"  # others are in the checkpoint's conversion.json (test_carried.py)
    with pytest.raises(InputError, match="back: " + words if added else f"mcore: hf/{name} has changed"):
        convert.to_hf(mcore, back)
    with pytest.raises(InputError, match="like: " + words):
        convert.to_hf(mcore, tmp_path / "like", like=hf)


def test_a_checkpoint_that_does_not_name_its_model(convert: Convert, tmp_path: Path) -> None:
    tensors = write_folder(tmp_path / "hf")
    convert.to_mcore(tmp_path / "hf", tmp_path / "mcore")
    shutil.rmtree(tmp_path / "mcore" / "hf")
    with pytest.raises(InputError, match=r"hf/config\.json is missing.* give its folder with --like"):
        convert.to_hf(tmp_path / "mcore", tmp_path / "back")
    kept = report.read(tmp_path / "mcore")
    assert kept is not None
    report.write(msgspec.structs.replace(kept, files={}), tmp_path / "mcore")  # as of training: none listed
    with pytest.raises(InputError, match="--like FOLDER"):
        convert.to_hf(tmp_path / "mcore", tmp_path / "back")
    convert.to_hf(tmp_path / "mcore", tmp_path / "back", like=tmp_path / "hf")
    assert_equal(read_tensors(tmp_path / "back"), tensors)


def test_a_layout_that_cannot_hold_the_model(convert: Convert, tmp_path: Path) -> None:
    write_folder(tmp_path / "hf")
    for parallel in (Parallel(tensor=3), Parallel(pipeline=3)):
        with pytest.raises(ConfigError, match=r"--tp, --pp, --vpp do not fit .* one of"):
            convert.to_mcore(tmp_path / "hf", tmp_path / "mcore", parallel=parallel)
    assert not list(tmp_path.glob("mcore*"))


def test_too_little_disk(convert: Convert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "hf")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1000, 999, 1))
    with pytest.raises(InputError, match="free some space"):
        convert.to_mcore(tmp_path / "hf", tmp_path / "mcore")
    assert not list(tmp_path.glob("mcore*"))
