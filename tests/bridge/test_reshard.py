"""HF -> Megatron shards -> HF is bit-equal for every layout; what does not fit is named."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from apriel_mcore.bridge.arena import Arena
from apriel_mcore.bridge.names import hf_tensors
from apriel_mcore.bridge.plan import Coordinates, Plan, make_plan
from apriel_mcore.bridge.reshard import ShardExport, check_shards, export_shard, load_hf_weights, read_folder
from apriel_mcore.bridge.shape import ModelShape
from apriel_mcore.config.schema import Parallel
from apriel_mcore.errors import BridgeError, InputError

MakeShape = Callable[..., ModelShape]
Chunks = list[dict[str, Tensor]]


def random_weights(shape: ModelShape, dtype: torch.dtype = torch.bfloat16) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.randn(sizes, generator=generator).to(dtype) for name, sizes in hf_tensors(shape).items()
    }


def ranks_of(plan: Plan, parallel: Parallel) -> list[Coordinates]:
    return [
        Coordinates(
            tensor_rank=tensor, pipeline_rank=stage, data_rank=0, context_rank=0, chunks=plan.chunks[stage]
        )
        for stage in range(parallel.pipeline)
        for tensor in range(parallel.tensor)
    ]


def empty_chunks(plan: Plan, rank: Coordinates, dtype: torch.dtype = torch.bfloat16) -> Chunks:
    """A rank's parameters, filled with what must not survive a load."""
    chunks: Chunks = [{} for _ in rank.chunks]
    for shard in plan.shards_of(rank):
        chunks[shard.chunk][shard.parameter] = torch.full(shard.sizes, torch.nan, dtype=dtype)
    return chunks


def load_one(
    shape: ModelShape, folder: Path, parallel: Parallel | None = None
) -> tuple[Plan, Coordinates, Chunks]:
    parallel = parallel or Parallel()
    plan = make_plan(shape, parallel, "local")
    rank = ranks_of(plan, parallel)[0]
    chunks = empty_chunks(plan, rank)
    load_hf_weights(chunks, plan, rank, folder)
    return plan, rank, chunks


FAMILIES = {
    "llama": {},
    "smollm2": {"tied": True},
    "qwen2": {"qkv_bias": True},
    "qwen3": {"qk_norm": True, "tied": True},
}
"""What the parameters of families differ in; the shape's heads are wider than its hidden size in all."""


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("spec", ["local", "te"])
@pytest.mark.parametrize("tensor", [1, 2, 4])
@pytest.mark.parametrize(("pipeline", "virtual"), [(1, 1), (2, 1), (2, 2), (4, 1)])
def test_round_trip_is_bit_equal(
    small_shape: MakeShape, tmp_path: Path, family: str, spec: str, tensor: int, pipeline: int, virtual: int
) -> None:
    shape = small_shape(**FAMILIES[family])
    parallel = Parallel(tensor=tensor, pipeline=pipeline, virtual_pipeline=virtual)
    plan = make_plan(shape, parallel, "te" if spec == "te" else "local")
    weights = random_weights(shape)
    save_file(weights, tmp_path / "model.safetensors")
    arena = Arena.create(tmp_path / "arena.safetensors", plan.tensors, "bfloat16")
    for rank in ranks_of(plan, parallel):
        chunks = empty_chunks(plan, rank)
        load_hf_weights(chunks, plan, rank, tmp_path)
        assert not any(tensor.isnan().any() for chunk in chunks for tensor in chunk.values())
        export_shard(chunks, plan.exports_of(rank), arena)
    exported = load_file(arena.path)
    assert exported.keys() == weights.keys()
    for name, weight in weights.items():
        assert torch.equal(exported[name], weight), name


def test_shards_are_what_megatron_expects(small_shape: MakeShape, tmp_path: Path) -> None:
    shape = small_shape()
    weights = random_weights(shape)
    save_file(weights, tmp_path / "model.safetensors")
    parallel = Parallel(tensor=2)
    plan = make_plan(shape, parallel, "local")
    chunks = empty_chunks(plan, ranks_of(plan, parallel)[1])
    load_hf_weights(chunks, plan, ranks_of(plan, parallel)[1], tmp_path)
    q, k, v, gate, up, o, down = (
        weights[f"model.layers.3.{name}.weight"]
        for name in (
            "self_attn.q_proj",
            "self_attn.k_proj",
            "self_attn.v_proj",
            "mlp.gate_proj",
            "mlp.up_proj",
            "self_attn.o_proj",
            "mlp.down_proj",
        )
    )
    layer = "decoder.layers.3."
    groups = torch.cat([part.view(4, -1, shape.hidden_size) for part in (q, k, v)], dim=1)
    qkv = groups[2:].reshape(-1, shape.hidden_size)
    assert torch.equal(chunks[0][layer + "self_attention.linear_qkv.weight"], qkv)
    assert torch.equal(chunks[0][layer + "self_attention.linear_proj.weight"], o[:, 8:])
    assert torch.equal(chunks[0][layer + "mlp.linear_fc1.weight"], torch.cat([gate[4:], up[4:]]))
    assert torch.equal(chunks[0][layer + "mlp.linear_fc2.weight"], down[:, 4:])
    embedding = weights["model.embed_tokens.weight"]
    padded = chunks[0]["embedding.word_embeddings.weight"]
    assert torch.equal(padded[:5], embedding[6:])
    assert padded.shape[0] == 6
    assert not padded[5:].any()


def test_biases_and_head_norms_are_what_megatron_expects(small_shape: MakeShape, tmp_path: Path) -> None:
    shape = small_shape(qkv_bias=True, qk_norm=True)
    weights = random_weights(shape)
    save_file(weights, tmp_path / "model.safetensors")
    parallel = Parallel(tensor=2)
    plan = make_plan(shape, parallel, "te")
    chunks = empty_chunks(plan, ranks_of(plan, parallel)[1])
    load_hf_weights(chunks, plan, ranks_of(plan, parallel)[1], tmp_path)
    attention = "decoder.layers.3.self_attention."
    parts = [weights[f"model.layers.3.self_attn.{name}_proj.bias"].view(4, -1) for name in "qkv"]
    bias = torch.cat(parts, dim=1)[2:].flatten()
    assert torch.equal(chunks[0][attention + "linear_qkv.bias"], bias)
    for name in "qk":
        whole = weights[f"model.layers.3.self_attn.{name}_norm.weight"]
        assert torch.equal(chunks[0][f"{attention}{name}_layernorm.weight"], whole)


def test_a_layout_can_be_changed_through_the_hf_names(small_shape: MakeShape, tmp_path: Path) -> None:
    shape = small_shape()
    weights = random_weights(shape)
    save_file(weights, tmp_path / "model.safetensors")
    for number, parallel in enumerate([Parallel(tensor=4), Parallel(tensor=2, pipeline=2), Parallel()]):
        plan = make_plan(shape, parallel, "te")
        folder = tmp_path / str(number)
        folder.mkdir()
        arena = Arena.create(folder / "model.safetensors", plan.tensors, "bfloat16")
        source = tmp_path if number == 0 else tmp_path / str(number - 1)
        for rank in ranks_of(plan, parallel):
            chunks = empty_chunks(plan, rank)
            load_hf_weights(chunks, plan, rank, source)
            export_shard(chunks, plan.exports_of(rank), arena)
    final = load_file(tmp_path / "2" / "model.safetensors")
    assert all(torch.equal(final[name], weight) for name, weight in weights.items())


def test_masters_are_cast_to_the_arena(small_shape: MakeShape, tmp_path: Path) -> None:
    shape = small_shape()
    weights = random_weights(shape, torch.float32)
    save_file(weights, tmp_path / "model.safetensors")
    plan = make_plan(shape, Parallel(), "local")
    rank = ranks_of(plan, Parallel())[0]
    chunks = empty_chunks(plan, rank, torch.float32)
    load_hf_weights(chunks, plan, rank, tmp_path)
    arena = Arena.create(tmp_path / "arena.safetensors", plan.tensors, "bfloat16")
    export_shard(chunks, plan.exports_of(rank), arena)
    assert all(torch.equal(arena.views[name], weight.bfloat16()) for name, weight in weights.items())


def test_a_bound_export_follows_the_weights(small_shape: MakeShape, tmp_path: Path) -> None:
    shape = small_shape()
    save_file(random_weights(shape), tmp_path / "model.safetensors")
    plan, rank, chunks = load_one(shape, tmp_path)
    norm = chunks[0]["decoder.final_layernorm.weight"]
    arena = Arena.create(tmp_path / "arena.safetensors", plan.tensors, "bfloat16")
    export = ShardExport(plan.exports_of(rank), arena)
    export.run(chunks)
    norm.fill_(2.0)  # in place
    export.run(chunks)
    assert arena.views["model.norm.weight"].eq(2.0).all()
    norm.data = torch.full_like(norm, 3.0)  # new storage, same parameter
    export.run(chunks)
    assert arena.views["model.norm.weight"].eq(3.0).all()
    chunks[0]["decoder.final_layernorm.weight"] = torch.full_like(norm, 4.0)  # a new parameter
    export.run(chunks)
    assert arena.views["model.norm.weight"].eq(4.0).all()


@pytest.mark.parametrize("prefix", ["language_model.model.", "model.language_model."])
def test_loading_reports_what_it_read_and_dropped(
    small_shape: MakeShape, tmp_path: Path, prefix: str
) -> None:
    shape = small_shape()
    stored = {name.replace("model.", prefix, 1): weight for name, weight in random_weights(shape).items()} | {
        "vision_tower.patch_conv.weight": torch.zeros(3)
    }
    names = sorted(stored)
    halves = {"one.safetensors": names[::2], "two.safetensors": names[1::2]}
    for file, half in halves.items():
        save_file({name: stored[name] for name in half}, tmp_path / file)
    index = {"weight_map": {name: file for file, half in halves.items() for name in half}}
    (tmp_path / "model.safetensors.index.json").write_bytes(msgspec.json.encode(index))
    plan = make_plan(shape, Parallel(tensor=2), "local")
    reports = [
        load_hf_weights(empty_chunks(plan, rank), plan, rank, tmp_path)
        for rank in ranks_of(plan, Parallel(tensor=2))
    ]
    assert reports[0].dropped == ("vision_tower.patch_conv.weight",)
    assert reports[0].num_tensors == len(plan.tensors)
    num_norms = 2 * shape.num_layers + 1
    assert sum(report.num_bytes for report in reports) == 2 * (
        shape.num_parameters + num_norms * shape.hidden_size
    ), "every byte is read once, replicated norms once a rank"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model.layers.2.mlp.up_proj.weight": None}, "missing model.layers.2.mlp.up_proj.weight"),
        ({"model.layers.0.self_attn.q_proj.bias": torch.zeros(16)}, "left over .*q_proj.bias"),
        ({"model.norm.weight": torch.zeros(7)}, r"model.norm.weight is \(7,\), expected \(6,\)"),
        ({"language_model.model.norm.weight": torch.zeros(6)}, "which the folder already has"),
    ],
)
def test_a_folder_that_does_not_fit_is_refused_by_name_and_nothing_is_written(
    small_shape: MakeShape, tmp_path: Path, change: dict[str, Tensor | None], message: str
) -> None:
    shape = small_shape()
    weights = random_weights(shape) | change
    save_file({name: w for name, w in weights.items() if w is not None}, tmp_path / "model.safetensors")
    plan = make_plan(shape, Parallel(), "local")
    rank = ranks_of(plan, Parallel())[0]
    chunks = empty_chunks(plan, rank)
    with pytest.raises(BridgeError, match=message):
        load_hf_weights(chunks, plan, rank, tmp_path)
    assert all(tensor.isnan().all() for tensor in chunks[0].values())


def test_a_tied_head_that_is_written_out_must_be_the_embedding(
    small_shape: MakeShape, tmp_path: Path
) -> None:
    shape = small_shape(tied=True)
    weights = random_weights(shape)
    head = weights["model.embed_tokens.weight"].clone()
    save_file(weights | {"lm_head.weight": head}, tmp_path / "model.safetensors")
    plan = make_plan(shape, Parallel(), "local")
    rank = ranks_of(plan, Parallel())[0]
    report = load_hf_weights(empty_chunks(plan, rank), plan, rank, tmp_path)
    assert report.dropped == ("lm_head.weight",)
    assert report.num_tensors == len(weights)
    head[0] += 1
    save_file(weights | {"lm_head.weight": head}, tmp_path / "model.safetensors")
    with pytest.raises(BridgeError, match=r"lm_head\.weight differs from model\.embed_tokens\.weight"):
        load_one(shape, tmp_path)


def test_parameters_that_do_not_fit_the_plan_are_named(small_shape: MakeShape) -> None:
    plan = make_plan(small_shape(), Parallel(tensor=2), "local")
    rank = ranks_of(plan, Parallel(tensor=2))[1]
    chunks = empty_chunks(plan, rank)
    check_shards(chunks, plan, rank)
    del chunks[0]["output_layer.weight"]
    chunks[0]["decoder.layers.0.self_attention.linear_qkv.bias"] = torch.zeros(4)
    chunks[0]["decoder.final_layernorm.weight"] = torch.zeros(5)
    with pytest.raises(BridgeError, match=r"tensor rank 1, pipeline rank 0, chunk 0: 3 tensors") as refusal:
        check_shards(chunks, plan, rank)
    for named in ("missing output_layer", "left over .*linear_qkv.bias", r"final_layernorm.weight is \(5,\)"):
        refusal.match(named)


@pytest.mark.parametrize("index", [False, True])
def test_an_incomplete_folder_is_an_input_error(tmp_path: Path, index: bool) -> None:
    if index:
        (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "one.safetensors"}}')
    with pytest.raises(InputError, match=r"(one|model)\.safetensors: no such file"):
        read_folder(tmp_path)


def test_writing_to_a_read_folder_never_reaches_the_file(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(4)}, tmp_path / "model.safetensors")
    read_folder(tmp_path)[0]["a"].fill_(1.0)
    assert load_file(tmp_path / "model.safetensors")["a"].eq(0.0).all()
