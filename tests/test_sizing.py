"""What does not fit is refused, and the named change makes it fit: no smaller one does."""

import re
from pathlib import Path

import msgspec
import numpy as np
import pytest

from apriel_mcore import sizing
from apriel_mcore.config.load import load
from apriel_mcore.config.schema import RunConfig
from apriel_mcore.data.packing import pack_step
from apriel_mcore.errors import ConfigError
from apriel_mcore.types import Sample
from tests.shapes import SHAPES

RECIPES = Path(__file__).parents[1] / "recipes"
APRIEL_15B = RECIPES / "apriel_reasoner_15b.toml"
SHAPE = SHAPES["apriel_15b"]


def refusal(config: RunConfig, shape_name: str = "apriel_15b") -> str:
    with pytest.raises(ConfigError) as error:
        sizing.require_fit(config, SHAPES[shape_name])
    return str(error.value)


@pytest.mark.parametrize(
    "recipe",
    [APRIEL_15B, *sorted(RECIPES.glob("scaling/*.toml")), *sorted(RECIPES.glob("ablations/15b_*.toml"))],
    ids=lambda path: path.stem,
)
def test_every_15b_recipe_fits_80_gb(recipe: Path) -> None:
    sizing.require_fit(load(recipe), SHAPE)


# What replaces parts of the recipe's layout on one node of eight, and the change that must be named. Where
# several keys must change, only that the change helps and that no part of it is idle is asked.
MISFITS = [
    (["train.parallel.distributed_optimizer=false"], "set train.parallel.distributed_optimizer = true"),
    (["train.parallel.sequence=false"], "set train.parallel.sequence = true"),
    (["train.parallel.tensor=2", "train.parallel.context=4"], 'set train.recompute = "selective"'),
    (["train.parallel.tensor=2", "train.parallel.data=2"], 'set train.recompute = "full"'),
    (["train.seq_len=60000"], 'set train.recompute = "selective"'),
    (
        [
            "train.parallel.tensor=2",
            "train.parallel.context=1",
            "train.parallel.data=4",
            "train.seq_len=80000",
        ],
        None,
    ),
    (["cluster.gpu_memory_gb=40"], "set train.parallel.tensor = 8 (16 GPUs)"),
    (["cluster.gpu_memory_gb=24"], None),
    (
        [
            "train.parallel.tensor=1",
            "train.parallel.sequence=false",
            "train.parallel.context=1",
            "train.parallel.data=8",
        ],
        None,
    ),
    (
        [
            "train.parallel.tensor=2",
            "train.parallel.context=1",
            "train.parallel.pipeline=4",
            "train.parallel.virtual_pipeline=2",
        ],
        'set train.recompute = "selective"',
    ),
    (
        [
            "train.recompute=full",
            "train.parallel.tensor=1",
            "train.parallel.sequence=false",
            "train.parallel.context=8",
        ],
        "set train.parallel.tensor = 2, train.parallel.context = 4",  # as many GPUs
    ),
]


@pytest.mark.parametrize(("overrides", "remedy"), MISFITS, ids=lambda value: str(value)[:60])
def test_the_named_change_makes_it_fit(overrides: list[str], remedy: str | None) -> None:
    said = refusal(load(APRIEL_15B, overrides))
    assert "train.parallel: stage 0 needs" in said
    if remedy:
        assert said.endswith(remedy)
    changes = re.findall(r"(train\.[\w.]+) = ([\w\"]+)", said.partition("; set ")[2])
    sizing.require_fit(load(APRIEL_15B, [*overrides, *(f"{key}={value}" for key, value in changes)]), SHAPE)
    if len(changes) > 1:  # each part of the change is needed
        for left_out in changes:
            rest = [f"{key}={value}" for key, value in changes if key != left_out[0]]
            try:
                config = load(APRIEL_15B, [*overrides, *rest])
            except ConfigError:
                continue  # the layout makes sense only as a whole
            if config.train.parallel.world_size <= 8:
                refusal(config)


def test_what_no_layout_can_hold_says_so() -> None:
    assert "no other layout fits" in refusal(load(APRIEL_15B, ["cluster.gpu_memory_gb=5"]))


def test_70b_needs_more_than_a_node() -> None:
    said = refusal(load(APRIEL_15B), "llama3_70b")
    found = re.search(r"\((\d+) GPUs\)", said)
    assert found and int(found.group(1)) > 8


def test_a_server_whose_weights_leave_no_room_for_one_answer() -> None:
    small = ["cluster.gpu_memory_gb=40", "train.parallel.tensor=8", "train.parallel.data=1"]
    config = load(APRIEL_15B, [*small, "rollout.servers.tensor=1"])
    said = refusal(config)
    assert "room for 14481 tokens" in said
    assert said.endswith("set rollout.servers.tensor = 2, rollout.servers.count = 6")
    sizing.require_fit(
        load(APRIEL_15B, [*small, "rollout.servers.tensor=2", "rollout.servers.count=6"]), SHAPE
    )


def test_a_cache_larger_than_the_gpu() -> None:
    said = refusal(load(APRIEL_15B, ["rollout.servers.kv_cache_gib=70"]))
    assert "rollout.servers.kv_cache_gib = 70" in said and '"auto"' in said


def test_a_server_size_that_does_not_divide_the_heads() -> None:
    config = load(APRIEL_15B, ["rollout.servers.tensor=8"])
    odd = msgspec.structs.replace(SHAPE, num_heads=12, num_kv_heads=4)
    with pytest.raises(ConfigError, match=r"rollout\.servers\.tensor = 8.*use one of 1, 2, 4$"):
        sizing.require_fit(config, odd)


def test_shared_memory_does_not_leave_the_node() -> None:
    said = refusal(load(APRIEL_15B, ["publish.kind=arena"]))
    assert "publish.kind" in said and "32 GPUs" in said and '"stream"' in said


def test_the_how_to_shows_what_is_said() -> None:
    page = (RECIPES.parent / "docs" / "how-to" / "size-a-run.md").read_text()
    assert "\n".join(sizing.describe(load(APRIEL_15B), SHAPE)) in page
    assert refusal(load(APRIEL_15B, ["train.parallel.distributed_optimizer=false"])) in page


def test_each_distinct_stage_has_a_line() -> None:
    layout = ["train.parallel.pipeline=4", "train.parallel.tensor=2", "train.parallel.context=1"]
    config = load(APRIEL_15B, layout)
    lines = [line for line in sizing.describe(config, SHAPE) if line.startswith("stage")]
    assert [line.split()[1] for line in lines] == ["0", "1", "3"]
    assert all("12 layers" in line for line in lines)


@pytest.mark.parametrize("num_data_ranks", [1, 4])
def test_the_rows_said_are_those_of_the_packing(num_data_ranks: int) -> None:
    """Answers of all lengths alike take half of their budget on average."""
    config = load(APRIEL_15B, [f"train.parallel.data={num_data_ranks}"])
    line = next(line for line in sizing.describe(config, SHAPE) if line.startswith("rows"))
    expected, most = int(line.split()[1]), int(re.findall(r"(\d+) at most", line)[0])
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, config.rollout.max_output_tokens, 1024).tolist()
    samples = [
        Sample(
            domain="math", prompt_T=(1,), response_T=(2,) * n, logprobs_T=(0.0,) * n, advantage=1.0, version=0
        )
        for n in lengths
    ]
    batch = pack_step(samples, config, num_data_ranks=num_data_ranks)
    found = len(batch.rows[0])
    assert found <= most
    assert found == pytest.approx(expected, rel=0.05)


def test_servers_of_others_are_not_sized() -> None:
    urls = ["rollout.servers.kind=urls", 'rollout.servers.urls=["http://pool:8000"]']
    config = load(APRIEL_15B, [*urls, "rollout.servers.max_model_len=20000"])
    sizing.require_fit(config, SHAPE)
    assert "somebody else" in sizing.describe(config, SHAPE)[-1]


def test_an_fp8_copy_to_publish_is_listed_and_counts() -> None:
    plain = load(APRIEL_15B)
    config = load(APRIEL_15B, ["publish.weights=fp8_block"])
    listed = [line for line in sizing.describe(config, SHAPE) if line.startswith("stage")]
    assert all(", FP8 copy to publish 3.3, in all" in line for line in listed)
    assert not any("FP8 copy" in line for line in sizing.describe(plain, SHAPE))
    stages = [sizing._stages(one, one.train, SHAPE)[0].total for one in (plain, config)]
    limit = (stages[0] + stages[1]) / 2 / 1e9 + 4 * 2**30 / 1e9  # between the two
    sizing.require_fit(load(APRIEL_15B, [f"cluster.gpu_memory_gb={limit:.2f}"]), SHAPE)
    assert "GB a GPU" in refusal(
        load(APRIEL_15B, ["publish.weights=fp8_block", f"cluster.gpu_memory_gb={limit:.2f}"])
    )
