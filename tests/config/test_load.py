"""Recipes load, errors name the key and the remedy, and dump is the inverse of load."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apriel_mcore.config.load import diff, dump, load, merge, parse_override, read_tree
from apriel_mcore.config.schema import DifficultyAwareLengthPenalty, LocalServers
from apriel_mcore.errors import ConfigError

RECIPES = Path(__file__).parents[2] / "recipes"
QUICKSTART = RECIPES / "quickstart.toml"
APRIEL_15B = RECIPES / "apriel_reasoner_15b.toml"
SCALING = RECIPES / "scaling"
RUNNABLE = sorted(set(RECIPES.rglob("*.toml")) - {RECIPES / "base.toml"})


@pytest.mark.parametrize("recipe", RUNNABLE, ids=lambda path: str(path.relative_to(RECIPES)))
def test_every_recipe_loads_and_round_trips(recipe: Path, tmp_path: Path) -> None:
    config = load(recipe)
    resolved = tmp_path / "resolved.toml"
    resolved.write_text(dump(config), encoding="utf-8")
    assert load(resolved) == config


@pytest.mark.parametrize("recipe", RUNNABLE, ids=lambda path: str(path.relative_to(RECIPES)))
def test_no_recipe_repeats_what_it_inherits(recipe: Path) -> None:
    import tomllib

    from apriel_mcore.config.load import leaves

    own = tomllib.loads(recipe.read_text(encoding="utf-8"))
    parent = leaves(read_tree(recipe.parent / own.pop("extends")))
    repeated = {key for key, value in leaves(own).items() if key in parent and parent[key] == value}
    kinds = {key for key in repeated if key.endswith(".kind")}
    assert repeated == kinds


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("publish.weights=fp8_tensor", ["CPU", "fp8_block", "train.device"]),
        ("publish.weights=fp8_rows", ["publish.weights", "fp8_rows"]),
        ("train.lrr=1", ["train.lrr", "unknown key", "lr"]),
        ("train.optimizer.lrr=1", ["train.optimizer.lrr", "unknown key", "`lr`"]),
        ("domains.math.sources.sums.siz=3", ["domains.math.sources.sums.siz", "`size`"]),
        ("train.num_steps=many", ["train.num_steps", "int"]),
        ("train.num_steps=0", ["train.num_steps", ">= 1"]),
        ("domains.math.ratio=0.5", ["domains", "sum to 1", "1.1"]),
        ("domains.math.length_buffer=24", ["buffer", "budget", "math"]),
        ("reward.length.kind=hard", ["reward.length", "hard"]),
        ("rollout.max_output_tokens=600", ["rollout.max_output_tokens", "max_model_len"]),
        ("train.parallel.virtual_pipeline=2", ["train.parallel", "pipeline > 1"]),
        ("sampler.unit=groups", ["sampler", "kept_groups"]),
        ("domains.math.sources.sums.name=sum", ["domains.math.sources.sums.name", "'sum'", "mean `sums`"]),
        ("sampler.kind=fair", ["sampler.kind", "'fair'", "deficit, paper, static"]),
        ("model.kind=hub", ["model", "'hub'", "gguf_wheel, folder"]),
        ("domains.math.sources.sums.kind=csv", ["domains.math.sources.sums", "'csv'", "jsonl"]),
        ("domains.maths.ratio=0.1", ["domains.maths:", "`sources`", "did you mean `domains.math`"]),
        ("domains.logic.sources.more.size=3", ["domains.logic.sources.more:", "`kind`"]),
        ("domains.math.length_buffer=0", ["domains.math.length_buffer:", ">= 1"]),
        ("domains.math.ratio=2", ["domains.math.ratio:", "<= 1"]),
        ("domains.logic.sources.more.kind=template", ["domains.logic.sources.more:", "`name`"]),
        ("publish.message_mib=8", ["publish.message_mib", 'belongs to kind = "stream"']),
        ("publish.probe_bound=inf", ["publish.probe_bound", "<= 1.79"]),
        ("train.optimizer.momentum=1", ["train.optimizer.momentum", "betas", "weight_decay"]),
        ("train", ["section.key=value"]),
        ('rollout.servers={kind="urls", urls=["http://me:key@a:1"]}', ["rollout.servers", "urls", "http"]),
        ('rollout.servers={kind="urls", urls=["a:8000"]}', ["rollout.servers", "urls", "http"]),
        ('rollout.servers={kind="urls", urls=["http://a:1/pool"]}', ["rollout.servers", "urls", "http"]),
        ('verify={kind="urls", token_file="t", urls=["http://a:1?key=k"]}', ["verify", "urls", "http"]),
    ],
)
def test_wrong_input_names_key_and_remedy(override: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        load(QUICKSTART, [override])
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.recompute=some", ["train.recompute", "some"]),
        ("train.parallel.tensor=16", ["train.parallel.tensor = 16", "cluster.gpus_per_node = 8"]),
        ("rollout.servers.tensor=3", ["rollout.servers.tensor = 3", "cluster.gpus_per_node = 8"]),
        ("train.parallel.pipeline=3", ["24 GPUs", "train.parallel.data"]),
        ("train.device=cpu", ["rollout.servers.kv_cache_gib", "cuda"]),
        ("rollout.servers.gpu_memory_utilization=1.1", ["gpu_memory_utilization", "<= 1.0"]),
        ("cluster.gpu_memory_gb=0", ["cluster.gpu_memory_gb"]),
    ],
)
def test_wrong_devices_name_key_and_remedy(override: str, words: list[str]) -> None:
    nodes = ["cluster.gpus_per_node=16"] if "pipeline" in override else []
    with pytest.raises(ConfigError) as error:
        load(APRIEL_15B, [override, *nodes])
    for word in words:
        assert word in str(error.value)


def test_the_15b_recipe_states_the_papers_numbers() -> None:
    config = load(APRIEL_15B)
    assert config.ratios == {"math": 0.40, "code": 0.25, "logic": 0.15, "instruction": 0.10, "calls": 0.10}
    assert (config.loss.kind, config.loss.clip_low, config.loss.clip_high) == ("gspo", 3e-3, 4e-3)
    assert (config.rollout.max_output_tokens, config.train.seq_len) == (16000, 20000)
    assert config.reward.length == DifficultyAwareLengthPenalty(buffer=2000, gamma=1.0)
    optimizer = config.train.optimizer
    assert (optimizer.lr, optimizer.warmup_steps, optimizer.clip_grad) == (1e-6, 50, 0.3)
    assert (config.train.groups_per_step, config.rollout.group_size) == (128, 8)
    assert (config.train.num_steps, config.checkpoint.every) == (400, 50)
    assert config.train.device == "cuda"


@pytest.mark.parametrize(
    ("name", "leaves"),
    [
        ("no_length_penalty", {"reward.length.kind", "reward.length.buffer", "reward.length.gamma"}),
        ("standard_length_penalty", {"reward.length.kind", "reward.length.gamma"}),
        ("uniform_mix", {f"domains.{domain}.ratio" for domain in load(APRIEL_15B).domains}),
        ("math_code", {f"domains.{domain}.ratio" for domain in load(APRIEL_15B).domains}),
    ],
)
def test_an_ablation_changes_one_thing(name: str, leaves: set[str]) -> None:
    changed = diff(load(APRIEL_15B), load(RECIPES / "ablations" / f"15b_{name}.toml"))
    assert changed.keys() - {"name", "reward.length.failure_scale"} == leaves


@pytest.mark.parametrize("num_nodes", [2, 4, 8, 16])
def test_a_scaling_recipe_fills_the_nodes_of_its_name(num_nodes: int) -> None:
    config = load(SCALING / f"{num_nodes}nodes.toml")
    assert isinstance(config.rollout.servers, LocalServers)
    gpus = (config.train.parallel.world_size, config.rollout.servers.num_devices)
    assert sum(config.cluster.nodes_of(count) for count in gpus) == num_nodes
    assert sum(gpus) == 8 * num_nodes
    # Fewer groups than the servers have places for would leave some idle; outstanding work worth less than
    # twice the places would make them wait for the trainer (docs/how-to/size-a-run.md).
    places = config.rollout.servers.count * config.rollout.servers.max_num_seqs
    assert config.rollout.max_groups_in_flight * config.rollout.group_size >= places
    assert isinstance(config.rollout.max_lag, float)
    assert config.rollout.max_lag * config.train.groups_per_step * config.rollout.group_size >= 2 * places


def test_a_missing_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.toml: no such recipe"):
        load(tmp_path / "nothing.toml")


def test_a_missing_parent_is_named_with_who_extends_it(tmp_path: Path) -> None:
    child = tmp_path / "child.toml"
    child.write_text('extends = "parent.toml"\n')
    with pytest.raises(ConfigError, match=r"child\.toml: extends .*parent\.toml, which is not there"):
        load(child)


def test_extends_in_a_circle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('extends = "b.toml"\n')
    (tmp_path / "b.toml").write_text('extends = "a.toml"\n')
    with pytest.raises(ConfigError, match="circle"):
        load(tmp_path / "a.toml")


def test_a_changed_kind_replaces_its_table() -> None:
    base = {"length": {"kind": "standard", "buffer": 3}}
    assert merge(base, {"length": {"kind": "none"}}) == {"length": {"kind": "none"}}
    assert merge(base, {"length": {"buffer": 4}}) == {"length": {"kind": "standard", "buffer": 4}}


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("a.b=1", {"a": {"b": 1}}),
        ("a=2e-6", {"a": 2e-6}),
        ("a=true", {"a": True}),
        ("a=[1, 2]", {"a": [1, 2]}),
        ("a=word", {"a": "word"}),
        ('a="1"', {"a": "1"}),
    ],
)
def test_override_values_are_toml_and_bare_words_are_strings(text: str, tree: dict[str, object]) -> None:
    assert parse_override(text) == tree


def test_diff_lists_exactly_the_changed_leaves() -> None:
    changed = diff(load(QUICKSTART), load(QUICKSTART, ["train.optimizer.lr=1e-3", "seed=7"]))
    assert changed == {"seed": (0, 7), "train.optimizer.lr": (5e-5, 1e-3)}


def test_config_does_not_import_torch() -> None:
    code = "import sys, apriel_mcore.config.load, apriel_mcore.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


keys = st.text("abc", min_size=1, max_size=2)
trees = st.recursive(st.integers(), lambda inner: st.dictionaries(keys, inner, max_size=3), max_leaves=8)
tables = st.dictionaries(keys, trees, max_size=4)


@given(tables, tables)
def test_merge_keeps_every_leaf_of_the_upper_tree(base: dict, over: dict) -> None:
    merged = merge(base, over)
    assert merge(merged, over) == merged
    assert set(merged) == set(base) | set(over)
