"""How does a GGUF file become a Hugging Face folder? Dequantise, drop the tied head, save in bfloat16.

Heavy imports live here; data/model_files.py imports this file only when there is something to convert.
"""

from pathlib import Path

import torch
from gguf import GGUFReader
from safetensors.torch import save_file
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils import logging

from apriel_mcore.errors import InputError

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""Plain ChatML. The template shipped in SmolLM2 inserts a default system turn of 21 tokens when the chat
has none; ours adds nothing, so that an empty `system` in a recipe means what it says and costs nothing."""


def dequantise(gguf: Path, folder: Path) -> None:
    """Write config.json, model.safetensors (bfloat16, no tied head) and the tokenizer files into `folder`.

    transformers refuses to save a model that it read from GGUF, hence the weights are saved directly.
    InputError for a tokenizer or a chat format that cannot be converted faithfully.
    """
    logging.disable_progress_bar()
    _save_tokenizer(gguf, folder)
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    state = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        del state["lm_head.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    fields = {key: value for key, value in model.config.to_dict().items() if key != "quantization_config"}
    config = type(model.config).from_dict(fields)
    config.dtype = torch.bfloat16
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)


def _save_tokenizer(gguf: Path, folder: Path) -> None:
    tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    split = _text_field(gguf, "tokenizer.ggml.pre")
    if split != "smollm":
        raise InputError(
            f"{gguf.name}: tokenizer.ggml.pre = {split!r} is not supported, only 'smollm'; {_REMEDY}"
        )
    if "<|im_start|>" not in (tokenizer.chat_template or ""):
        raise InputError(f"{gguf.name}: its chat template is not ChatML; {_REMEDY}")
    # transformers converts every GPT-2-like vocabulary with one splitting rule; this one was trained
    # with each digit on its own, which changes how spaces before a digit are cut.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(folder)


def _text_field(gguf: Path, key: str) -> str:
    field = GGUFReader(gguf).get_field(key)
    return "" if field is None else str(field.contents())


_REMEDY = 'convert it elsewhere and use model.kind = "folder"'
