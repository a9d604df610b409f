"""A Llama of 1.3 M parameters with a tokenizer of bytes, and problems whose answers anybody can write."""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM

RIGHT = "```python\ndef double(x):\n    return 2 * x\n```\nIt is \\boxed{7}"
WRONG = "```python\ndef double(x):\n    return 3 * x\n```\nIt is \\boxed{8}"
_NUM_PROBLEMS = 40


def make_model(folder: Path) -> None:
    """A Hugging Face folder with seeded weights; its end token is 0."""
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=320,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
    )
    LlamaForCausalLM(shape).bfloat16().save_pretrained(folder)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<|end|>": 0} | {letter: index + 1 for index, letter in enumerate(letters)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    kind = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|end|>",
        "chat_template": "{% for message in messages %}{{ message.content }}{% endfor %}",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(kind), encoding="utf-8")


def write_problems(folder: Path) -> None:
    """math.jsonl and code.jsonl: all are solved by RIGHT and none by WRONG."""
    tests = [{"args": [2], "expected": 4}]
    references = {
        "math": {"answer": "7", "format": "boxed"},
        "code": {"tests": tests, "entry_point": "double"},
    }
    for verifier, reference in references.items():
        rows = [
            {"prompt": f"{verifier} {number}?", "verifier": verifier, "reference": reference}
            for number in range(_NUM_PROBLEMS)
        ]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{verifier}.jsonl").write_text(lines, encoding="utf-8")
