"""What Megatron is told of FP8, and what it would do without being asked."""

from contextlib import nullcontext
from typing import Any

import msgspec
import pytest
import torch

from apriel_mcore.config.schema import (
    BlockwiseFp8,
    DelayedFp8,
    EmulatedFp8,
    Fp8,
    Mxfp8,
    NoFp8,
    TensorwiseFp8,
    Train,
)
from apriel_mcore.errors import ConfigError
from apriel_mcore.fp8 import kind_of
from tests.mcore.llama import SHAPE, train_section

pytestmark = pytest.mark.engine


def train_with(fp8: Fp8) -> Train:
    device = "cpu" if isinstance(fp8, EmulatedFp8) else "cuda"
    return msgspec.structs.replace(
        train_section("bf16", distributed_optimizer=True), seq_len=128, fp8=fp8, device=device
    )


@pytest.mark.parametrize(
    ("fp8", "wanted"),
    [
        (NoFp8(), {"fp8": None, "fp8_param": False}),
        (EmulatedFp8(), {"fp8": None, "fp8_param": False}),
        (
            TensorwiseFp8(params=True, bf16_last=0),
            {
                "fp8": "hybrid",
                "fp8_recipe": "tensorwise",
                "fp8_param": True,
                "first_last_layers_bf16": True,
                "num_layers_at_start_in_bf16": 1,
                "num_layers_at_end_in_bf16": 0,
            },
        ),
        (
            DelayedFp8(amax_history=16, amax="most_recent", margin=1),
            {
                "fp8": "hybrid",
                "fp8_recipe": "delayed",
                "first_last_layers_bf16": False,
                "fp8_amax_history_len": 16,
                "fp8_amax_compute_algo": "most_recent",
                "fp8_margin": 1,
            },
        ),
        (BlockwiseFp8(bf16_first=0, bf16_last=0), {"fp8": "e4m3", "first_last_layers_bf16": False}),
        (Mxfp8(), {"fp8": "e4m3", "fp8_recipe": "mxfp8", "fp8_param": False}),
    ],
)
def test_megatron_is_told(fp8: Fp8, wanted: dict[str, object]) -> None:
    from megatron.core.transformer.transformer_config import TransformerConfig

    from apriel_mcore.mcore.fp8 import settings

    found = TransformerConfig(num_layers=4, hidden_size=64, num_attention_heads=8, **settings(fp8))
    assert {key: getattr(found, key) for key in wanted} == wanted


@pytest.mark.parametrize("fp8", [NoFp8(), TensorwiseFp8(), DelayedFp8(), BlockwiseFp8(), Mxfp8()])
def test_no_rank_trains_without_what_it_was_asked_for(fp8: Fp8) -> None:
    from apriel_mcore.mcore.model import HAVE_TE, build_model

    if HAVE_TE:
        pytest.skip("Transformer Engine is installed: tests/mcore/test_gpu.py trains with it")
    asked = 'train.device = "cuda"' if fp8 == NoFp8() else f'train.fp8.kind = "{kind_of(fp8)}"'
    with pytest.raises(ConfigError) as error:
        build_model(SHAPE, train_with(fp8))
    assert f"{asked} needs Transformer Engine" in str(error.value)
    assert "install the `gpu` extra" in str(error.value)


def test_megatron_itself_says_nothing() -> None:
    """Why the checks are ours: should this ever fail, some of them can go."""
    from megatron.core.fp8_utils import HAVE_TE, get_fp8_context
    from megatron.core.transformer.transformer_config import TransformerConfig

    if HAVE_TE:
        pytest.skip("with Transformer Engine a context is made")
    bogus: Any = "bogus"
    config = TransformerConfig(
        num_layers=4, hidden_size=64, num_attention_heads=8, fp8="hybrid", fp8_recipe=bogus
    )
    assert isinstance(get_fp8_context(config), nullcontext)


def test_parameters_that_are_not_fp8_are_the_modules_own() -> None:
    from apriel_mcore.mcore.fp8 import PlainParameters, write_back

    module = torch.nn.Linear(3, 2)
    found = PlainParameters(module)
    assert list(found) == ["weight", "bias"] and len(found) == 2
    assert found["weight"] is module.weight
    write_back(module, {})
