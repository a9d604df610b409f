"""Which layers compute in FP8, and what a recipe may not ask of it."""

from pathlib import Path
from typing import Any

import pytest

from apriel_mcore import fp8, sizing
from apriel_mcore.config.load import load
from apriel_mcore.config.schema import (
    BlockwiseFp8,
    DelayedFp8,
    EmulatedFp8,
    Fp8,
    Mxfp8,
    NoFp8,
    Optimizer,
    Parallel,
    TensorwiseFp8,
    Train,
)
from apriel_mcore.errors import ConfigError
from apriel_mcore.memory import kept_per_token, training_memory
from tests.shapes import SHAPES

RECIPES = Path(__file__).parents[1] / "recipes"
FP8_RECIPES = sorted(RECIPES.glob("fp8/*.toml"))
SHAPE = SHAPES["apriel_15b"]


def train_at(kind: Fp8, **parallel: Any) -> Train:
    sizes = {"tensor": 4, "context": 2, "sequence": True, "distributed_optimizer": True} | parallel
    return Train(
        num_steps=1,
        groups_per_step=1,
        seq_len=20480,
        device="cuda",
        optimizer=Optimizer(lr=1e-6),
        parallel=Parallel(**sizes),
        fp8=kind,
    )


@pytest.mark.parametrize("recipe", FP8_RECIPES, ids=lambda path: path.stem)
def test_every_fp8_recipe_fits_80_gb(recipe: Path) -> None:
    config = load(recipe)
    fp8.check_shape(SHAPE, config.train)
    sizing.require_fit(config, SHAPE)
    assert any("(46 in FP8)" in line for line in sizing.describe(config, SHAPE))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["train.fp8.kind=tensorwize"], "train.fp8.kind: invalid value 'tensorwize'"),
        (["train.fp8.kind=tensorwise"], "seq_len = 20000 is no multiple of 128"),
        (["train.fp8.kind=blockwise"], "seq_len = 20000 is no multiple of 1024, which FP8 asks"),
        (
            ["train.seq_len=20480", "train.fp8.kind=tensorwise", "train.precision=fp32"],
            'set precision = "bf16"',
        ),
        (["train.fp8.kind=emulated"], 'with device = "cuda" use "tensorwise"'),
        (["train.fp8.kind=mxfp8", "train.fp8.params=true"], "train.fp8.params"),
        (["train.fp8.kind=delayed", "train.fp8.bf16_first=1"], "train.fp8.bf16_first"),
        (
            [
                "train.seq_len=20480",
                "train.fp8.kind=delayed",
                "train.fp8.params=true",
                "train.parallel.distributed_optimizer=false",
            ],
            "needs parallel.distributed_optimizer = true",
        ),
        (
            [
                "train.seq_len=20480",
                "train.fp8.kind=tensorwise",
                "train.fp8.params=true",
                "publish.kind=arena",
            ],
            'needs publish.kind = "stream"',
        ),
    ],
)
def test_bad_combinations_are_refused(overrides: list[str], words: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(RECIPES / "apriel_reasoner_15b.toml", overrides)
    assert words in str(error.value)


def test_a_cpu_has_no_fp8() -> None:
    with pytest.raises(ConfigError, match=r'use fp8\.kind = "emulated"'):
        load(RECIPES / "quickstart.toml", ["train.fp8.kind=tensorwise"])
    config = load(RECIPES / "quickstart.toml", ["train.fp8.kind=emulated"])
    assert config.train.fp8 == EmulatedFp8()


@pytest.mark.parametrize(
    ("name", "kind", "parallel", "words"),
    [
        ("apriel_15b", TensorwiseFp8(bf16_first=40, bf16_last=8), {}, "leave none of 48 layers"),
        (
            "apriel_15b",
            TensorwiseFp8(bf16_first=13),
            {"tensor": 2, "pipeline": 4},
            "exceeds the 12 layers of a pipeline stage",
        ),
        ("llama2_13b", BlockwiseFp8(), {"tensor": 8}, "linear_fc2 is 5120 x 1728 on each of"),
        ("llama2_13b", BlockwiseFp8(), {"tensor": 4}, ""),
        ("llama2_13b", TensorwiseFp8(), {"tensor": 8}, ""),
    ],
)
def test_shapes_that_do_not_fit_are_refused(
    name: str, kind: Fp8, parallel: dict[str, int], words: str
) -> None:
    train = train_at(kind, **parallel)
    if not words:
        fp8.check_shape(SHAPES[name], train)
        return
    with pytest.raises(ConfigError) as error:
        fp8.check_shape(SHAPES[name], train)
    assert words in str(error.value)


def test_counts_the_layers_of_each_stage() -> None:
    kind = TensorwiseFp8(bf16_first=1, bf16_last=2)
    plain = train_at(kind, pipeline=4)
    assert [fp8.num_fp8_layers(SHAPE, plain, stage) for stage in range(4)] == [11, 12, 12, 10]
    interleaved = train_at(kind, pipeline=4, virtual_pipeline=2)
    assert [fp8.num_fp8_layers(SHAPE, interleaved, stage) for stage in range(4)] == [11, 12, 12, 10]
    assert fp8.num_fp8_layers(SHAPE, train_at(DelayedFp8()), 0) == 48
    assert fp8.num_fp8_layers(SHAPE, train_at(NoFp8()), 0) == 0


def test_linear_weights_are_all_but_norms() -> None:
    layer = SHAPE.num_parameters - 2 * 131072 * 5120 - 5120
    assert SHAPE.num_layers * (fp8.linear_weights(SHAPE, 1) + 2 * 5120) == layer
    assert fp8.linear_weights(SHAPE, 4) * 4 == fp8.linear_weights(SHAPE, 1)


def test_memory_of_fp8_layers() -> None:
    """Counted by hand: tensor 4, sequence parallel, context 2; q = 1024, k = 256, f = 3584, h / 4 = 1280."""

    def stage(kind: Fp8) -> Any:
        return training_memory(SHAPE, train_at(kind), num_micro_batches=8, weights_in="as_trained")[0]

    off, tensorwise, params = stage(NoFp8()), stage(TensorwiseFp8()), stage(TensorwiseFp8(params=True))
    linear = 46 * (5120 * (1024 + 2 * 256) + 1024 * 5120 + 3 * 5120 * 3584)
    assert tensorwise.weights - off.weights == 2 * linear
    assert params.weights == off.weights
    assert (tensorwise.gradients, tensorwise.optimizer) == (off.gradients, off.optimizer)

    train = train_at(TensorwiseFp8())
    # Less: two norms' outputs and the product become bytes; more: the projection's input in FP8.
    less = 2 * 1280 + 3584 - 1024
    assert kept_per_token(SHAPE, train, in_fp8=False) - kept_per_token(SHAPE, train, in_fp8=True) == less
    assert off.activations - tensorwise.activations == 46 * less * 10240
    small = kept_per_token(SHAPE, train_at(Mxfp8()), in_fp8=True) - kept_per_token(SHAPE, train, in_fp8=True)
    assert small == (1280 + 1024 + 1280 + 3584) // 32


def test_a_remedy_is_a_layout_that_fp8_takes() -> None:
    config = load(FP8_RECIPES[0].parent / "15b.toml", ["train.parallel.distributed_optimizer=false"])
    with pytest.raises(ConfigError, match=r"set train\.parallel\.distributed_optimizer = true"):
        sizing.require_fit(config, SHAPE)
