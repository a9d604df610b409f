"""A small Llama for engine tests: its shape, seeded weights, batches, and the reference training step.

The reference is plain PyTorch on Hugging Face's Llama, one sample after the other, no packing.
"""

import math
from typing import Any, Literal

import msgspec
import numpy as np
import torch

from apriel_mcore.bench.shapes import hf_settings
from apriel_mcore.bridge.shape import ModelShape
from apriel_mcore.config.schema import Loss, Optimizer, Parallel, Train
from apriel_mcore.data.packing import pack
from apriel_mcore.types import Batch, Row, Sample

SHAPE = ModelShape(
    family="llama",
    hidden_size=64,
    num_layers=4,
    num_heads=8,
    num_kv_heads=4,
    head_dim=16,  # 8 x 16 differs from the hidden size
    ffn_size=96,
    vocab_size=101,  # odd: padded under tensor parallelism
    tied=True,
    rope_theta=10_000.0,
    norm_eps=1e-5,
    max_positions=512,
)

OPTIMIZER = Optimizer(
    lr=1e-3, weight_decay=0.1, clip_grad=0.3, warmup_steps=2, schedule="cosine", min_lr=1e-4
)
LOSS = Loss(kind="gspo", clip_low=0.2, clip_high=0.28)
TEMPERATURES = (0.9, 1.1)
"""Of the samples in turn: a batch may hold answers of two stages."""


def train_section(precision: Literal["fp32", "bf16"] = "fp32", **parallel: Any) -> Train:
    """A training section at the layout of `parallel`."""
    return Train(
        num_steps=8,
        groups_per_step=2,
        seq_len=96,
        precision=precision,
        threads=1,
        optimizer=OPTIMIZER,
        parallel=Parallel(**parallel),
    )


def hf_model(shape: ModelShape = SHAPE, *, std: float = 0.1) -> Any:
    """transformers' Llama of the shape with seeded weights, float32."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(7)
    settings: dict[str, Any] = {
        **hf_settings(shape),
        "initializer_range": std,
        "attn_implementation": "sdpa",
    }
    model = LlamaForCausalLM(LlamaConfig(**settings))
    with torch.no_grad():  # norms of ones would hide a norm that is applied twice or not at all
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.normal_(1.0, 0.1)
    return model


def shard_by_hand(learner: Any, state: dict[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    """HF tensors as this rank's parameters, written out here as an oracle that is not the bridge."""
    tp, rank = learner.ranks.sizes.tensor, learner.ranks.tensor
    return [
        {
            name: _hf_tensor(name, state, coordinates.layer_offset, learner.model.shape, tp, rank)
            for name in chunk
        }
        for chunk, coordinates in zip(learner.chunks(), learner.coordinates.chunks, strict=True)
    ]


def load_by_hand(learner: Any, state: dict[str, torch.Tensor]) -> None:
    """Sets this rank's weights from HF tensors."""
    wanted = shard_by_hand(learner, state)
    for chunk, values in zip(learner.chunks(), wanted, strict=True):
        for name, weight in chunk.items():
            weight.data.copy_(values[name])
    learner.adopt_weights(wanted)


def _hf_tensor(
    name: str, state: dict[str, torch.Tensor], offset: int, shape: ModelShape, tp: int, rank: int
) -> torch.Tensor:
    def mine(tensor: torch.Tensor, dim: int) -> torch.Tensor:
        return tensor.chunk(tp, dim)[rank]

    def rows(tensor: torch.Tensor) -> torch.Tensor:
        missing = shape.padded_vocab(tp) - shape.vocab_size
        return mine(torch.cat([tensor, tensor.new_full((missing, tensor.shape[1]), 3.0)]), 0)

    if name == "embedding.word_embeddings.weight":
        return rows(state["model.embed_tokens.weight"])
    if name == "output_layer.weight":
        return rows(state["model.embed_tokens.weight" if shape.tied else "lm_head.weight"])
    if name == "decoder.final_layernorm.weight":
        return state["model.norm.weight"]
    _, _, index, rest = name.split(".", 3)
    layer = f"model.layers.{int(index) + offset}."
    if rest == "self_attention.linear_qkv.weight":
        groups, size = shape.num_kv_heads, shape.head_dim
        q, k, v = (state[f"{layer}self_attn.{part}_proj.weight"] for part in "qkv")
        parts = [part.view(groups, -1, size, shape.hidden_size) for part in (q, k, v)]
        return mine(torch.cat(parts, 1), 0).reshape(-1, shape.hidden_size)
    if rest == "mlp.linear_fc1.weight":
        return torch.cat([mine(state[f"{layer}mlp.{part}_proj.weight"], 0) for part in ("gate", "up")])
    if rest == "self_attention.linear_proj.weight":
        return mine(state[f"{layer}self_attn.o_proj.weight"], 1)
    if rest == "mlp.linear_fc2.weight":
        return mine(state[f"{layer}mlp.down_proj.weight"], 1)
    norms = {"input_layernorm": "input_layernorm", "pre_mlp_layernorm": "post_attention_layernorm"}
    return state[f"{layer}{norms[rest.removesuffix('.weight')]}.weight"]


def samples_of(seed: int, count: int = 6, vocab: int = SHAPE.vocab_size) -> tuple[Sample, ...]:
    """Prompts and responses of uneven lengths, with plausible behaviour log-probs."""
    rng = np.random.default_rng(seed)
    return tuple(
        Sample(
            domain="math",
            prompt_T=tuple(rng.integers(0, vocab, rng.integers(1, 12)).tolist()),
            response_T=tuple(rng.integers(0, vocab, length := int(rng.integers(1, 20))).tolist()),
            logprobs_T=tuple((-4.6 + rng.normal(0, 0.3, length)).tolist()),
            advantage=float(rng.normal()),
            version=0,
            temperature=TEMPERATURES[number % 2],
        )
        for number in range(count)
    )


def batch_of(samples: tuple[Sample, ...], *, num_data_ranks: int, pad_multiple: int) -> Batch:
    """Three rows of two samples, dealt to the data ranks; empty rows fill up."""
    rows = [Row(sample_ids=(2 * i, 2 * i + 1), num_tokens=0) for i in range(len(samples) // 2)]
    rows += [Row(sample_ids=(), num_tokens=0)] * (-len(rows) % num_data_ranks)
    per_rank = len(rows) // num_data_ranks
    return Batch(
        samples=samples,
        rows=tuple(tuple(rows[d * per_rank : (d + 1) * per_rank]) for d in range(num_data_ranks)),
        num_rollouts=8,
        num_response_tokens=sum(len(sample.response_T) for sample in samples),
        pad_multiple=pad_multiple,
    )


def families_of(seed: int, *, num_data_ranks: int, pad_multiple: int) -> Batch:
    """Groups of three samples with one prompt, packed so that they share it."""
    samples = samples_of(seed, count=12)
    kin = [msgspec.structs.replace(s, prompt_T=samples[i - i % 3].prompt_T) for i, s in enumerate(samples)]
    return pack(
        kin,
        seq_len=96,
        num_data_ranks=num_data_ranks,
        num_rollouts=8,
        pad_multiple=pad_multiple,
        share_prompts=True,
    )


def reference_steps(model: Any, batches: list[Batch]) -> list[tuple[float, float]]:
    """Trains `model` in place; loss and gradient norm before clipping of each step."""
    weights = list(model.parameters())
    adam = torch.optim.AdamW(
        [
            {"params": [w for w in weights if w.ndim > 1], "weight_decay": OPTIMIZER.weight_decay},
            {"params": [w for w in weights if w.ndim == 1], "weight_decay": 0.0},
        ],
        betas=OPTIMIZER.betas,
        eps=OPTIMIZER.eps,
    )
    found = []
    for number, batch in enumerate(batches, start=1):
        for group in adam.param_groups:
            group["lr"] = _learning_rate(number)
        adam.zero_grad()
        loss = sum((sample_loss(model, sample, batch) for sample in batch.samples), torch.zeros(()))
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(weights, OPTIMIZER.clip_grad)
        adam.step()
        found.append((loss.item(), norm.item()))
    return found


def reference_logprobs(model: Any, tokens_T: list[int], temperature: float = 1.0) -> torch.Tensor:
    """Log-prob of each token after the first, [T - 1]."""
    logits_TV = model(torch.tensor([tokens_T])).logits[0, :-1].float() / temperature
    targets_T = torch.tensor(tokens_T[1:])
    return torch.log_softmax(logits_TV, dim=-1).gather(1, targets_T[:, None]).squeeze(1)


def sample_loss(model: Any, sample: Sample, batch: Batch) -> torch.Tensor:
    """GSPO with token weight: - |y| / Bs * min(rho A, clip(rho) A)."""
    tokens = [*sample.prompt_T, *sample.response_T]
    logprobs_T = reference_logprobs(model, tokens, sample.temperature)[len(sample.prompt_T) - 1 :]
    ratio = (logprobs_T - torch.tensor(sample.logprobs_T)).mean().exp()
    clipped = ratio.clamp(1 - LOSS.clip_low, 1 + LOSS.clip_high)
    objective = torch.minimum(ratio * sample.advantage, clipped * sample.advantage)
    return -len(sample.response_T) / batch.num_rollouts * objective


def _learning_rate(update: int) -> float:
    """Linear warm-up that starts above zero, then cosine down to the minimum."""
    if update <= OPTIMIZER.warmup_steps:
        return OPTIMIZER.lr * update / OPTIMIZER.warmup_steps
    done = (update - OPTIMIZER.warmup_steps) / (train_section().num_steps - OPTIMIZER.warmup_steps)
    return OPTIMIZER.min_lr + (OPTIMIZER.lr - OPTIMIZER.min_lr) * 0.5 * (math.cos(math.pi * done) + 1)
