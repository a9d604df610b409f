"""python -m apriel_mcore.convert.parity_child CHECKPOINT FOLDER: log-probs of one text from both, as JSON.

FOLDER      transformers, float32  -- one after the other, so that one model is in memory --
CHECKPOINT  MegatronLearner, float32, one rank
"""

import gc
import sys
import time
from pathlib import Path

import msgspec
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

from apriel_mcore.bridge import shape as model_shape
from apriel_mcore.config.schema import Loss, Optimizer, Train
from apriel_mcore.convert.parity import Measured
from apriel_mcore.mcore import checkpoint as megatron_checkpoint
from apriel_mcore.mcore import parallel
from apriel_mcore.mcore.learner import MegatronLearner

_NUM_TOKENS = 48
_FAR = 1e30
"""Nats, where one side says what is no number: JSON has none for it."""


def main(checkpoint: Path, folder: Path) -> None:
    """Print a `Measured` as the last line."""
    began = time.monotonic()
    tokens_T = text(model_shape.read(folder).vocab_size)
    theirs_T = transformers_logprobs(folder, tokens_T)
    gc.collect()
    ours_T = torch.tensor(megatron_logprobs(checkpoint, folder, tokens_T))
    gap_T = (ours_T - theirs_T).abs().nan_to_num(nan=_FAR, posinf=_FAR)
    measured = Measured(
        tokens=len(tokens_T),
        max_abs_diff=gap_T.max().item(),
        mean_abs_diff=gap_T.mean().item(),
        seconds=time.monotonic() - began,
    )
    print(msgspec.json.encode(measured).decode())


def text(vocab_size: int) -> list[int]:
    """Token numbers spread over the vocabulary, its last row included."""
    return [(vocab_size - 1) * (i * i + i) // (_NUM_TOKENS * (_NUM_TOKENS - 1)) for i in range(_NUM_TOKENS)]


@torch.no_grad()
def transformers_logprobs(folder: Path, tokens_T: list[int]) -> Tensor:
    """Log-prob of each token after the first, [T - 1]."""
    multimodal = "text_config" in AutoConfig.from_pretrained(folder).to_dict()
    kind = AutoModelForImageTextToText if multimodal else AutoModelForCausalLM
    model = kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
    logits_TV = model(torch.tensor([tokens_T])).logits[0, :-1]
    return torch.log_softmax(logits_TV, dim=-1).gather(1, torch.tensor(tokens_T[1:])[:, None]).squeeze(1)


def megatron_logprobs(checkpoint: Path, folder: Path, tokens_T: list[int]) -> list[float]:
    """The same from the checkpoint, through the trainer's own model."""
    train = Train(
        num_steps=1, groups_per_step=1, seq_len=len(tokens_T), precision="fp32", optimizer=Optimizer(lr=1.0)
    )
    ranks = parallel.start(train, seed=0)
    learner = MegatronLearner(model_shape.read(folder), train, Loss(), ranks=ranks)
    megatron_checkpoint.load_weights(checkpoint, learner)
    return learner.logprobs(tokens_T)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
