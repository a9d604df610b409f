"""Imports go down, heavy packages enter by their doors, and fakes stay out of the product.

A file may import files of lower floors and those above it on its own floor. Anyone may change the table,
with a reason.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "apriel_mcore"

# One line a floor, lowest first; a folder stands for all of its files, in any order among themselves.
FLOORS: list[list[str]] = [
    [
        "__init__",
        "errors",
        "types",
        "processes",
        "disk",
        "secret",
        "http_limits",
        "config",
        "obs.runlog",
        "obs.spans",
        "obs.wandb_writer",
    ],
    [
        "loss",
        "bridge.rope",
        "bridge.families",
        "bridge.shape",
        "bridge.layouts",
        "bridge.names",
        "bridge.tensorfile",
        "bridge.plan",
        "fp8",
        "kernels",
        "bridge.scales",
        "memory",
        "sizing",
        "data",
        "views.charts",
        "obs.stepevent",
        "obs.trained",
        "obs.timeline",
        "obs.stragglers",
        "obs.watch",
    ],
    ["verify"],
    [
        "data.constant",
        "data.wrong_math",
        "data.wrong",
        "data.templates",
        "data.layouts",
        "data.problems",
        "data.prompts",
        "data.gold_check",
        "data.fetch",
    ],
    ["checkpoint_folder"],
    ["seams", "fakes", "bridge", "mcore", "rollout", "obs.steplog"],
    ["checkpoints", "evaluate", "loop", "planning"],
    [
        "rundir",
        "preflight",
        "backstage",
        "build",
        "train",
        "obs",
        "views",
        "data_views",
        "gold_replay",
        "launcher",
        "evaluation",
        "cluster",
        "pool_door",
        "convert",
        "bench",
        "cli",
    ],
]

# Package -> the files or folders that may import it.
DOORS: dict[str, set[str]] = {
    "megatron": {"mcore", "bench.step", "bench.checkpoint", "bench.parity_logits"},
    "transformer_engine": {"mcore"},
    "vllm": {"rollout.inside_vllm", "bench.peers.trl_grpo"},
    "trl": {"bench.peers.trl_grpo"},
    "transformers": {"data.gguf", "data.prompts", "convert.parity_child", "bench"},
    "wandb": {"obs.wandb_writer"},
    "nemo_run": {"cluster.transport"},
    "datasets": {"data.hub", "bench.peers.trl_grpo"},
    "pyarrow": {"data.hub"},
    "reasoning_gym": {"data.templates.puzzles", "verify.logic"},
    "math_verify": {"verify.algebra"},
    "latex2sympy2_extended": {"verify.algebra"},
    "bfcl_eval": {"verify.calls"},
    "py3langid": {"verify.instruction.language"},
    "torch": {
        "loss.policy",
        "mcore",
        "bridge.arena",
        "bridge.finite",
        "bridge.reshard",
        "bridge.quantise",
        "bridge.receipt",
        "bridge.channel",
        "bridge.courier",
        "bridge.local_copy",
        "bridge.stream_transport",
        "bridge.version_folder",  # a version is handed on as tensors in the files' pages
        "rollout.inside_vllm",
        "data.gguf",
        "planning.rates",  # measures torch's own products and copies
        "convert",
        "bench",
    },
}


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        yield name.removesuffix(".__init__"), path


def imports(path: Path) -> Iterator[str]:
    """Dotted names that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            is_package = (ROOT / node.module.replace(".", "/")).is_dir()
            yield from (f"{node.module}.{alias.name}" if is_package else node.module for alias in node.names)


def floor_of(module: str) -> int:
    """The floor of the longest entry that names the module or a folder around it."""
    entries = [
        (len(entry), floor) for floor, names in enumerate(FLOORS) for entry in names if within(module, entry)
    ]
    assert entries, f"{module} stands on no floor: add it to FLOORS"
    return max(entries)[1]


def within(module: str, place: str) -> bool:
    return module == place or module.startswith(place + ".")


def test_no_import_climbs_a_floor() -> None:
    known = {name for name, _ in modules()}
    climbs = [
        f"{module} (floor {floor_of(module)}) imports {target} (floor {floor_of(target)})"
        for module, path in modules()
        for imported in imports(path)
        if imported.startswith("apriel_mcore.")
        and (target := imported.removeprefix("apriel_mcore.")) in known
        and floor_of(target) > floor_of(module)
    ]
    assert not climbs, "\n".join(sorted(set(climbs)))


def test_heavy_packages_enter_by_their_doors() -> None:
    trespasses = [
        f"{module} imports {package}"
        for module, path in modules()
        for imported in imports(path)
        if (package := imported.split(".")[0]) in DOORS
        and not any(within(module, door) for door in DOORS[package])
    ]
    assert not trespasses, "\n".join(sorted(set(trespasses)))


def test_no_product_file_imports_the_fakes() -> None:
    users = [
        module for module, path in modules() if any(i.startswith("apriel_mcore.fakes") for i in imports(path))
    ]
    assert users == []
