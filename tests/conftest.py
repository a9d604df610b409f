"""Fixtures that several test folders share: a tiny Llama folder, and one real vLLM server per session."""

import asyncio
import errno
import json
import os
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import settings
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor

from apriel_mcore.config.schema import LocalServers
from apriel_mcore.rollout.keeper import Patience
from apriel_mcore.rollout.pool import ServerPool
from apriel_mcore.rollout.server import ServerProcess
from apriel_mcore.rollout.server_spec import ServerSpec

settings.register_profile("long", max_examples=100_000, deadline=None)

TINY_SHAPE = {
    "vocab_size": 320,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,  # vLLM's CPU attention has no smaller one
    "max_position_embeddings": 1024,
}


def tiny_llama_weights(seed: int) -> dict[str, Tensor]:
    """HF names of a tied bf16 Llama of `TINY_SHAPE`, random enough for tokens to matter."""
    generator = torch.Generator().manual_seed(seed)
    hidden, ffn = TINY_SHAPE["hidden_size"], TINY_SHAPE["intermediate_size"]
    kv = TINY_SHAPE["num_key_value_heads"] * TINY_SHAPE["head_dim"]
    sizes = {"model.embed_tokens.weight": (TINY_SHAPE["vocab_size"], hidden)}
    for layer in range(TINY_SHAPE["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        sizes |= {f"{prefix}.self_attn.{name}_proj.weight": (hidden, hidden) for name in ("q", "o")}
        sizes |= {f"{prefix}.self_attn.{name}_proj.weight": (kv, hidden) for name in ("k", "v")}
        sizes |= {f"{prefix}.mlp.{name}_proj.weight": (ffn, hidden) for name in ("gate", "up")}
        sizes[f"{prefix}.mlp.down_proj.weight"] = (hidden, ffn)
    weights = {
        name: (0.08 * torch.randn(size, generator=generator)).bfloat16() for name, size in sizes.items()
    }
    norms = [
        f"model.layers.{i}.{name}_layernorm.weight" for i in range(2) for name in ("input", "post_attention")
    ]
    return weights | {name: torch.ones(hidden).bfloat16() for name in [*norms, "model.norm.weight"]}


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder: tied Llama of 1.3 M parameters with a byte-level tokenizer; end token 0."""
    folder = tmp_path_factory.mktemp("tiny-llama")
    fixed = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16"}
    more = {"tie_word_embeddings": True, "rms_norm_eps": 1e-6, "bos_token_id": 0, "eos_token_id": 0}
    (folder / "config.json").write_text(json.dumps(TINY_SHAPE | fixed | more | {"hidden_act": "silu"}))
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<|end|>": 0} | {letter: index + 1 for index, letter in enumerate(letters)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    kind = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|end|>"}
    kind["chat_template"] = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
    (folder / "tokenizer_config.json").write_text(json.dumps(kind))
    save_file(tiny_llama_weights(seed=0), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


class FullDisk:
    """A disk with room for so many more bytes, as far as apriel_mcore/disk.py sees it."""

    def __init__(self) -> None:
        self._room = sys.maxsize

    def after(self, num_bytes: int) -> None:
        self._room = num_bytes

    def never(self) -> None:
        self._room = sys.maxsize

    def write(self, descriptor: int, content: bytes) -> int:
        """As os.write: what fits, and an error when nothing does."""
        if self._room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = os.write(descriptor, content[: self._room])
        self._room -= written
        return written


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> FullDisk:
    """Full when it is told to be."""
    disk = FullDisk()
    os_of_disk = SimpleNamespace(**{**vars(os), "write": disk.write})
    monkeypatch.setattr("apriel_mcore.disk.os", os_of_disk)
    return disk


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The longest tests first, so that parallel workers end together; chaos only when it is asked for."""
    if "chaos" not in config.getoption("markexpr"):
        items[:] = [item for item in items if item.get_closest_marker("chaos") is None]
    items.sort(key=lambda item: item.get_closest_marker("e2e") is None)


class LivePool(NamedTuple):
    """A pool of one real server; `run` drives its event loop."""

    pool: ServerPool
    process: ServerProcess
    run: Callable[[Coroutine[Any, Any, Any]], Any]


NO_CUDA = torch.cuda.device_count() == 0
ON_EACH_DEVICE = [
    pytest.param("cpu", marks=pytest.mark.skipif(not NO_CUDA, reason="vLLM is built for one device: CUDA")),
    pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(NO_CUDA, reason="needs a CUDA device")]),
]


@pytest.fixture(scope="session", params=ON_EACH_DEVICE)
def live_pool(
    request: pytest.FixtureRequest, tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LivePool]:
    """One vLLM server on the tiny model, for the whole session (about a minute to start)."""
    settings = LocalServers(max_model_len=1024, max_num_seqs=16, kv_cache_gib=0.25)
    spec = ServerSpec(
        settings=settings,
        model=tiny_llama,
        device=request.param,
        index=0,
        seed=0,
        transport="arena",
        weights="as_trained",
        copies=tmp_path_factory.mktemp("copies"),
    )
    process = ServerProcess(spec, tmp_path_factory.mktemp("server-logs"), token="t" * 16)
    patience = Patience(start_timeout_s=500.0, backoff_s=0.1)
    pool = ServerPool([process], places=settings.max_num_seqs, recompute_kv=False, patience=patience)
    with asyncio.Runner() as runner:
        runner.run(pool.__aenter__())
        yield LivePool(pool, process, runner.run)
        runner.run(pool.__aexit__())
