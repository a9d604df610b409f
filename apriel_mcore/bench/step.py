"""How many tokens a second does one optimizer step train, against Hugging Face transformers?

Both take the same step on the same random weights and tokens with the same threads: GSPO on the
responses, gradient clip, AdamW. Ours packs the samples into one row; theirs is a batch of equal lengths,
so that neither pads. Theirs keeps the logits of response positions only, as TRL does. In bf16 ours has
float32 masters and a float32 head; theirs is once all bf16 (`ratio_to_hf`) and once has the float32 head
that the recipe asks for (`ratio_to_hf_fp32_head`).
"""

import argparse
import math
import statistics
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from apriel_mcore.bench.rounds import interleave, ratio
from apriel_mcore.bench.shapes import SHAPES, hf_settings
from apriel_mcore.bridge.shape import ModelShape
from apriel_mcore.config.schema import Loss, Optimizer, Train
from apriel_mcore.loss.policy import policy_loss
from apriel_mcore.types import Batch, Row, Sample

Precision = Literal["fp32", "bf16"]
Numbers = dict[str, float | str]

OPTIMIZER = Optimizer(lr=1e-6)
LOSS = Loss()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Size of the step."""
    parser.add_argument("--samples", type=int, default=4, help="sequences of a step")
    parser.add_argument("--prompt", type=int, default=32, help="prompt tokens of each")
    parser.add_argument("--response", type=int, default=96, help="response tokens of each")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds; figures are medians")
    parser.add_argument("--threads", type=int, default=1)


def run(args: argparse.Namespace) -> Numbers:
    """Tokens a second of a training step, 135M shape, against Hugging Face transformers."""
    from apriel_mcore.mcore import parallel

    ranks = parallel.start(train_section("fp32", args.threads), seed=0)
    numbers: Numbers = {}
    for precision in ("fp32", "bf16"):
        numbers |= measure(precision, args, ranks)
    parallel.stop()
    return numbers


def measure(precision: Precision, args: argparse.Namespace, ranks: Any) -> Numbers:
    """The figures of one precision, names prefixed with it."""
    from apriel_mcore.mcore.learner import MegatronLearner

    batch = make_batch(args)
    learner = MegatronLearner(SHAPES["135m"], train_section(precision, args.threads), LOSS, ranks=ranks)
    theirs = HuggingFaceStep(SHAPES["135m"], precision)
    ways: dict[str, Callable[[], object]] = {
        "ours": lambda: learner.train_step(batch),
        "hf": lambda: theirs.take(batch, fp32_head=False),
        "hf_fp32_head": lambda: theirs.take(batch, fp32_head=True),
    }
    if precision == "fp32":
        del ways["hf_fp32_head"]
    seconds = interleave(ways, args.rounds)
    num_tokens = sum(sample.num_tokens for sample in batch.samples)
    numbers: Numbers = {
        f"{precision}.tokens_per_s": num_tokens / statistics.median(seconds["ours"]),
        f"{precision}.optimizer": learner.optimizer.implementation,
    }
    for name, found in seconds.items():
        numbers[f"{precision}.{name}_seconds"] = statistics.median(found)
        if name != "ours":
            numbers[f"{precision}.ratio_to_{name}"] = ratio(found, seconds["ours"])
    return numbers


class HuggingFaceStep:
    """The step that a user of transformers and torch would write."""

    def __init__(self, shape: ModelShape, precision: Precision) -> None:
        from transformers import LlamaConfig, LlamaForCausalLM

        settings: dict[str, Any] = {**hf_settings(shape), "attn_implementation": "sdpa"}
        self.model: Any = LlamaForCausalLM(LlamaConfig(**settings))
        if precision == "bf16":
            self.model.bfloat16()
        self.adam = torch.optim.AdamW(
            self.model.parameters(), lr=OPTIMIZER.lr, weight_decay=OPTIMIZER.weight_decay
        )

    def take(self, batch: Batch, *, fp32_head: bool) -> None:
        """One optimizer step."""
        length = len(batch.samples[0].response_T)
        tokens_NT = torch.tensor([[*sample.prompt_T, *sample.response_T] for sample in batch.samples])
        logits_NTV = self._logits(tokens_NT, length + 1, fp32_head=fp32_head)[:, :-1].float()
        targets_NT = tokens_NT[:, -length:]
        logprobs_NT = logits_NTV.gather(2, targets_NT[..., None]).squeeze(2) - logits_NTV.logsumexp(dim=2)
        result = policy_loss(
            logprobs_NT.flatten(),
            behaviour_T=torch.tensor([sample.logprobs_T for sample in batch.samples]).flatten(),
            sample_T=torch.arange(len(batch.samples)).repeat_interleave(length),
            advantages_N=torch.tensor([sample.advantage for sample in batch.samples]),
            num_rollouts=batch.num_rollouts,
            num_tokens=batch.num_response_tokens,
            settings=LOSS,
        )
        self.adam.zero_grad()
        result.loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), OPTIMIZER.clip_grad)
        self.adam.step()

    def _logits(self, tokens_NT: Tensor, keep: int, *, fp32_head: bool) -> Tensor:
        if not fp32_head:
            return self.model(tokens_NT, logits_to_keep=keep, use_cache=False).logits
        hidden = self.model.model(tokens_NT, use_cache=False).last_hidden_state[:, -keep:]
        return hidden.float() @ self.model.lm_head.weight.float().T


def make_batch(args: argparse.Namespace) -> Batch:
    """Samples of one length in one row; ratios near one, so that nothing is clipped."""
    generator = torch.Generator().manual_seed(0)
    length, vocab = args.prompt + args.response, SHAPES["135m"].vocab_size
    tokens = torch.randint(vocab, (args.samples, length), generator=generator).tolist()
    samples = tuple(
        Sample(
            domain="math",
            prompt_T=tuple(row[: args.prompt]),
            response_T=tuple(row[args.prompt :]),
            logprobs_T=(-math.log(vocab),) * args.response,
            advantage=1.0 if number % 2 else -1.0,
            version=0,
        )
        for number, row in enumerate(tokens)
    )
    row = Row(sample_ids=tuple(range(args.samples)), num_tokens=args.samples * length)
    return Batch(
        samples=samples,
        rows=((row,),),
        num_rollouts=args.samples,
        num_response_tokens=args.samples * args.response,
        pad_multiple=1,
    )


def train_section(precision: Precision, threads: int) -> Train:
    """One rank on this CPU."""
    return Train(
        num_steps=1000,
        groups_per_step=1,
        seq_len=4096,
        precision=precision,
        threads=threads,
        optimizer=OPTIMIZER,
    )
