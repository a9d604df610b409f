"""Does every family compute in Megatron what it computes in Hugging Face, at every layout?

    tiny random model of transformers, float32 --save_pretrained--> folder --load_hf--> forked ranks
             |                                                                              |
             '--> logits of a text, one update by torch  <--compared in HF names-->  the same

Four figures a cell: the largest difference of a logit, of all positions and the whole vocabulary
(parity_logits.py); the largest difference of a log-prob as the trainer computes it; the largest relative
difference of a tensor's gradient (norm of the difference over the norm of Hugging Face's); and whether the
weights that went in come out of the bridge bit-equal. Gradients are read off the weights after one update,
so that they pass through every reduction and through the sharded optimizer: with eps far above every
gradient g, AdamW's first update is (lr / eps) g.
"""

import argparse
import copy
import itertools
import logging
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from apriel_mcore.bench.ranks import run_ranks
from apriel_mcore.bridge.arena import Arena
from apriel_mcore.bridge.names import plain_name
from apriel_mcore.bridge.plan import make_plan
from apriel_mcore.bridge.reshard import export_shard
from apriel_mcore.bridge.shape import ModelShape, read
from apriel_mcore.config.schema import Loss, Optimizer, Parallel, Train
from apriel_mcore.loss.policy import policy_loss
from apriel_mcore.types import Batch, Row, Sample

Numbers = dict[str, float | str]

LAYOUTS: dict[str, dict[str, Any]] = {
    "1 rank": {},
    "TP2": {"tensor": 2},
    "TP4": {"tensor": 4},
    "PP2": {"pipeline": 2},
    "PP4": {"pipeline": 4},
    "TP2 x PP2": {"tensor": 2, "pipeline": 2},
    "PP2 x VPP2": {"pipeline": 2, "virtual_pipeline": 2},
    "CP2": {"context": 2},
    "TP2 + SP": {"tensor": 2, "sequence": True},
    "DP2, distributed optimizer": {"data": 2, "distributed_optimizer": True},
}
SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "intermediate_size": 96,
    "vocab_size": 101,  # odd: padded under tensor parallelism
    "max_position_embeddings": 512,
}
WIDE_HEADS = 16
"""head_dim that makes 8 heads wider than the hidden size."""
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,  # shorter than the text, and of all three ranges of frequencies
}
TOWER = {
    "model_type": "pixtral",
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 32,
    "patch_size": 16,
}
MISTRAL = {"model_type": "mistral", **SIZES, "sliding_window": None}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", **SIZES, "head_dim": WIDE_HEADS, "rope_parameters": LLAMA3},
    "smollm2": {"model_type": "llama", **SIZES, "tie_word_embeddings": True, "rope_theta": 1e5},
    "mistral": MISTRAL | {"rope_theta": 1e6},
    "qwen2": {"model_type": "qwen2", **SIZES, "tie_word_embeddings": True, "rope_theta": 1e6},
    "qwen3": {"model_type": "qwen3", **SIZES, "head_dim": WIDE_HEADS, "rope_theta": 1e6},
    "apriel": {
        "model_type": "llava",
        "text_config": MISTRAL | {"head_dim": WIDE_HEADS, "rope_theta": 1e9},
        "vision_config": TOWER,
    },
}
"""config.json of a tiny model of each."""

TEXT_T = torch.randint(SIZES["vocab_size"], (40,), generator=torch.Generator().manual_seed(1)).tolist()
NUM_SAMPLES = 6
LOSS = Loss(kind="gspo", clip_low=1.0, clip_high=1.0)
OPTIMIZER = Optimizer(lr=1e6, eps=1e4, weight_decay=0.0, clip_grad=1e9)


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """What transformers and torch make of a family; tensors by the plain names of its decoder."""

    folder: Path
    shape: ModelShape
    batch: Batch
    logits_TV: Tensor
    before: dict[str, Tensor]
    after: dict[str, Tensor]


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """A family at a layout."""

    logit: float
    """Largest difference of a logit of the text, over all positions and tokens."""
    logprob: float
    """Largest difference of a log-prob of the text, nats."""
    gradient: float
    """Largest relative difference of a tensor's gradient."""
    round_trip: bool
    """Weights came back bit-equal."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Part of the matrix."""
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=list(FAMILIES))
    parser.add_argument("--layouts", nargs="+", default=list(LAYOUTS), choices=list(LAYOUTS))


def run(args: argparse.Namespace) -> Numbers:
    """Logits, log-probs and gradients of every family at every layout against Hugging Face, as a table."""
    _be_quiet()
    torch.set_num_threads(1)
    cells: dict[tuple[str, str], Cell] = {}
    with tempfile.TemporaryDirectory(prefix="parity-") as folder:
        for family in args.families:
            reference = reference_of(family, Path(folder) / family)
            for layout in args.layouts:
                cells[layout, family] = measure(reference, LAYOUTS[layout], folder=Path(folder))
    print(as_markdown(cells, args.layouts, args.families))
    return {
        "logit_difference": max(cell.logit for cell in cells.values()),
        "logprob_difference": max(cell.logprob for cell in cells.values()),
        "gradient_difference": max(cell.gradient for cell in cells.values()),
        "round_trips": f"{sum(cell.round_trip for cell in cells.values())} of {len(cells)} bit-equal",
    }


def _be_quiet() -> None:
    """Every world of ranks would repeat Megatron's warnings, above the table that was asked for."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    logging.getLogger("megatron").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")


def hf_model(family: str) -> Any:
    """transformers' model of `family` with seeded weights, float32."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    config = AutoConfig.for_model(**copy.deepcopy(FAMILIES[family]))
    # transformers keeps the gradient of the pad token's embedding at zero; text that holds it differs there.
    config.get_text_config().pad_token_id = None
    kind = AutoModelForImageTextToText if config.model_type == "llava" else AutoModelForCausalLM
    model: Any = kind.from_config(config)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            # Norms of ones and biases of zeros would hide one that is applied twice or not at all.
            weight.normal_(1.0 if "norm" in name else 0.0, 0.1, generator=generator)
    return model


def reference_of(family: str, folder: Path) -> Reference:
    """Saves the family's model into `folder`, then takes its logits and its update."""
    model = hf_model(family)
    model.save_pretrained(folder)
    with torch.no_grad():
        batch = make_batch(model)
        logits_TV = model(torch.tensor([TEXT_T]), use_cache=False).logits[0]
    before = _decoder_weights(model)
    _update(model, batch)
    return Reference(
        folder=folder,
        shape=read(folder),
        batch=batch,
        logits_TV=logits_TV,
        before=before,
        after=_decoder_weights(model),
    )


def make_batch(model: Any) -> Batch:
    """Three rows of two samples of uneven lengths, sampled by the model itself: every ratio is 1."""
    generator = torch.Generator().manual_seed(2)
    samples: list[Sample] = []
    for number in range(NUM_SAMPLES):
        prompt, response = torch.randint(1, 20, (2,), generator=generator).tolist()
        tokens = torch.randint(SIZES["vocab_size"], (prompt + response,), generator=generator).tolist()
        samples.append(
            Sample(
                domain="math",
                prompt_T=tuple(tokens[:prompt]),
                response_T=tuple(tokens[prompt:]),
                logprobs_T=tuple(_logprobs(model, tokens)[prompt - 1 :].tolist()),
                advantage=1.0 if number % 2 else -0.5,
                version=0,
            )
        )
    return Batch(
        samples=tuple(samples),
        rows=(tuple(Row(sample_ids=(i, i + 1), num_tokens=0) for i in range(0, NUM_SAMPLES, 2)),),
        num_rollouts=NUM_SAMPLES,
        num_response_tokens=sum(len(sample.response_T) for sample in samples),
        pad_multiple=1,
    )


def measure(reference: Reference, layout: dict[str, Any], *, folder: Path) -> Cell:
    """The figures of one family at one layout; files go to `folder`."""
    train = Train(
        num_steps=1,
        groups_per_step=1,
        seq_len=96,
        precision="fp32",
        threads=1,
        optimizer=OPTIMIZER,
        parallel=Parallel(**layout),
    )
    tensors = make_plan(reference.shape, train.parallel, "local").tensors
    loaded = Arena.create(folder / "loaded.safetensors", tensors, "float32")
    updated = Arena.create(folder / "updated.safetensors", tensors, "float32")
    world = train.parallel.world_size
    outputs_R = run_ranks(world, _on_rank, reference, train, loaded.path, updated.path, folder=folder)
    logprobs_T = _of_targets(reference.logits_TV, TEXT_T)
    cell = Cell(
        logit=max(_largest_gap(found.logits_TV, reference.logits_TV) for found in outputs_R),
        logprob=max(_largest_gap(found.logprobs_T, logprobs_T) for found in outputs_R),
        gradient=max(
            ((updated.views[name] - after).norm() / (after - reference.before[name]).norm()).item()
            for name, after in reference.after.items()
        ),
        round_trip=tensors.keys() == reference.before.keys()
        and all(torch.equal(loaded.views[name], weight) for name, weight in reference.before.items()),
    )
    loaded.close()
    updated.close()
    return cell


def as_markdown(cells: dict[tuple[str, str], Cell], layouts: Sequence[str], families: Sequence[str]) -> str:
    """Rows are layouts; bytes are `=` where the round trip is bit-equal."""
    lines = [["logits / log-prob / gradient / bytes", *families], ["---"] * (len(families) + 1)]
    for layout in layouts:
        found = [cells[layout, family] for family in families]
        lines.append([layout, *map(_in_words, found)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _in_words(cell: Cell) -> str:
    same = "=" if cell.round_trip else "DIFFERS"
    return f"{cell.logit:.1e} / {cell.logprob:.1e} / {cell.gradient:.1e} / {same}"


def _largest_gap(found: list[Any], wanted: Tensor) -> float:
    return (torch.tensor(found) - wanted).abs().max().item()


class Outputs(msgspec.Struct, frozen=True, kw_only=True):
    """What a rank says of the text."""

    logits_TV: list[list[float]]
    logprobs_T: list[float]


def _on_rank(reference: Reference, train: Train, loaded: Path, updated: Path) -> Outputs:
    """Runs on every rank, which writes its part of the two arenas."""
    from apriel_mcore.bench.parity_logits import text_logits
    from apriel_mcore.mcore import parallel
    from apriel_mcore.mcore.learner import MegatronLearner

    ranks = parallel.start(train, seed=3, timeout_s=60)
    learner = MegatronLearner(reference.shape, train, LOSS, ranks=ranks)
    learner.load_hf(reference.folder)
    _export(learner, Arena.attach(loaded))
    outputs = Outputs(logits_TV=text_logits(learner, TEXT_T).tolist(), logprobs_T=learner.logprobs(TEXT_T))
    learner.train_step(_dealt(reference.batch, learner.num_data_ranks, learner.pad_multiple))
    _export(learner, Arena.attach(updated))
    parallel.stop()
    return outputs


def _export(learner: Any, arena: Arena) -> None:
    plan = make_plan(learner.model.shape, learner.ranks.sizes, learner.spec)
    export_shard(learner.chunks(), plan.exports_of(learner.coordinates), arena)


def _dealt(batch: Batch, num_data_ranks: int, pad_multiple: int) -> Batch:
    """The same rows, an equal number for every data rank; empty ones fill up."""
    rows = [*batch.rows[0]]
    rows += [Row(sample_ids=(), num_tokens=0)] * (-len(rows) % num_data_ranks)
    dealt = tuple(itertools.batched(rows, len(rows) // num_data_ranks))
    return msgspec.structs.replace(batch, rows=dealt, pad_multiple=pad_multiple)


def _update(model: Any, batch: Batch) -> None:
    """One optimizer step by torch, one sample after the other, without packing."""
    adam = torch.optim.AdamW(model.parameters(), lr=OPTIMIZER.lr, eps=OPTIMIZER.eps, weight_decay=0.0)
    scored = [
        _logprobs(model, [*sample.prompt_T, *sample.response_T])[len(sample.prompt_T) - 1 :]
        for sample in batch.samples
    ]
    result = policy_loss(
        torch.cat(scored),
        behaviour_T=torch.tensor([logprob for sample in batch.samples for logprob in sample.logprobs_T]),
        sample_T=torch.arange(len(scored)).repeat_interleave(torch.tensor([len(s) for s in scored])),
        advantages_N=torch.tensor([sample.advantage for sample in batch.samples]),
        num_rollouts=batch.num_rollouts,
        num_tokens=batch.num_response_tokens,
        settings=LOSS,
    )
    result.loss.backward()
    adam.step()


def _logprobs(model: Any, tokens_T: Sequence[int]) -> Tensor:
    """Log-prob of each token after the first, [T - 1]."""
    return _of_targets(model(torch.tensor([tokens_T]), use_cache=False).logits[0], tokens_T)


def _of_targets(logits_TV: Tensor, tokens_T: Sequence[int]) -> Tensor:
    """The same, from logits."""
    return torch.log_softmax(logits_TV[:-1], dim=-1).gather(1, torch.tensor(tokens_T[1:])[:, None]).squeeze(1)


def _decoder_weights(model: Any) -> dict[str, Tensor]:
    """A copy of every trained weight; a tied head counts as the embedding."""
    named = ((plain_name(stored), weight) for stored, weight in model.named_parameters())
    return {name: weight.detach().clone() for name, weight in named if name is not None}
