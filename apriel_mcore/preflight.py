"""Can this run start? What can be known without an engine is checked before anything is written.

What a recipe says of GPUs needs the model's config.json and nothing else, so it is checked first: it can be
read on a laptop, before model and data are there.
"""

import shutil
import socket
from collections.abc import Callable
from importlib.util import find_spec
from math import prod
from pathlib import Path

from apriel_mcore import fp8, kernels, processes, sizing
from apriel_mcore.bridge import shape as model_shape
from apriel_mcore.bridge.names import hf_tensors
from apriel_mcore.bridge.scales import check_blocks, scales_for
from apriel_mcore.bridge.shape import ModelShape
from apriel_mcore.config.schema import (
    ArenaPublish,
    CollectedSource,
    EndpointJudge,
    FilesPublish,
    JsonlSource,
    LocalServers,
    RemoteServers,
    RemoteVerify,
    RunConfig,
)
from apriel_mcore.data import jsonl, model_files, overlap, problems, rows
from apriel_mcore.data.prompts import Renderer
from apriel_mcore.errors import ConfigError, InputError
from apriel_mcore.rollout.configured import remote_token
from apriel_mcore.rollout.reference import require_references
from apriel_mcore.rundir import RunDir
from apriel_mcore.verify.endpoint import read_judge_token
from apriel_mcore.verify.service import read_token

_GIB = 1 << 30


def check(config: RunConfig, run_dir: RunDir, *, tell: Callable[[str], object]) -> None:
    """Tell what is found, a line at a time; InputError for the first thing that would stop the run."""
    shape = check_sizes(config, tell=tell)
    model_files.model_folder(config.model)
    _check_data(config)
    _check_ports(config)
    _check_tokens(config)
    _check_space(config, shape, run_dir, tell)


def check_problems(config: RunConfig, *, tell: Callable[[str], object]) -> None:
    """What the run would train on, read and rendered as its first rank will. InputError as it would raise.

    Needs the tokenizer: a login node's environment, which has none, says so and leaves it to the job.
    """
    if find_spec("transformers") is None:
        tell("problems     not read: this environment has no tokenizer (transformers); the run reads them")
        return
    renderer = Renderer(model_files.model_folder(config.model))
    dataset = problems.load(config, renderer)
    require_references(config, dataset, renderer)
    for name, rejected in dataset.rejected.items():
        if not config.domains[name].sources:
            continue
        out = ", ".join(f"{count} {reason}" for reason, count in rejected.items())
        counts = f"{len(dataset.train[name])} to train on, {len(dataset.held_out[name])} held out"
        tell(f"{name:<12} {counts}" + (f"; left out: {out}" if out else ""))


def check_sizes(config: RunConfig, *, tell: Callable[[str], object]) -> ModelShape:
    """The part of `check` that asks for nothing but the model's config.json; the shape in it."""
    for remark in config.remarks():
        tell(f"note         {remark}")
    folder = model_files.config_folder(config.model)
    shape = model_shape.read(folder)
    tell(f"model        {folder.name}: {shape.num_parameters / 1e6:.1f} M parameters, {shape.family}")
    shape.check_layout(config.train.parallel)
    fp8.check_shape(shape, config.train)
    _check_context(config, shape)
    _check_fp8(config, shape)
    if config.train.device == "cuda":
        for line in sizing.describe(config, shape):
            tell(line)
        sizing.require_fit(config, shape)
    else:
        tell(f"trainer      {config.train.parallel.world_size} rank(s) on {config.train.device}")
    _check_kernels(config, tell)
    return shape


def require_kernels(config: RunConfig) -> None:
    """ConfigError where this environment cannot train as the recipe says, ModuleNotFoundError where it cannot
    train at all."""
    processes.require("torch")
    kernels.require(kernels.find(), config.train)


def _check_kernels(config: RunConfig, tell: Callable[[str], object]) -> None:
    """What trains here; a recipe for GPUs may also be read where nothing could."""
    found = kernels.find()
    if config.train.device == "cpu" or found.transformer_engine:
        kernels.require(found, config.train)
    tell(f"kernels      {kernels.describe(found, config.train)}")


def _check_context(config: RunConfig, shape: ModelShape) -> None:
    length = config.rollout.servers.max_model_len
    if length > shape.max_positions:
        raise ConfigError(
            f"rollout.servers.max_model_len: {length} exceeds the model's "
            f"{shape.max_positions} positions; lower it"
        )


def _check_fp8(config: RunConfig, shape: ModelShape) -> None:
    """What vLLM's own FP8 layers ask for, before a server has begun to load."""
    if config.publish.weights != "fp8_block":
        return
    check_blocks(shape, config.rollout.servers.tensor)
    if config.train.device == "cpu" and not _has_amx():
        raise ConfigError(
            "publish.weights: vLLM computes with FP8 on CPUs that have AMX (amx_tile in /proc/cpuinfo), and "
            'this one has not; use "as_trained"'
        )


def _has_amx() -> bool:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return any("amx_tile" in line.split() for line in lines if line.startswith("flags"))


def _check_data(config: RunConfig) -> None:
    """Local files are read once here, so that a missing file or a bad row stops nothing that has begun."""
    overlap.open_benchmarks(config.data.decontaminate)
    for name, domain in config.domains.items():
        for key, source in domain.sources.items():
            try:
                if isinstance(source, JsonlSource):
                    jsonl.items(source)
                elif isinstance(source, CollectedSource):
                    rows.require(source)
            except InputError as error:
                raise InputError(f"domains.{name}.sources.{key}: {error}") from None


def _check_ports(config: RunConfig) -> None:
    servers = config.rollout.servers
    if not isinstance(servers, LocalServers) or servers.port == 0:
        return
    for port in range(servers.port, servers.port + servers.count):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((servers.host, port))
            except OSError:
                raise InputError(
                    f"rollout.servers.port: {servers.host}:{port} is in use; "
                    "choose another port, or 0 for a free one"
                ) from None


def _check_tokens(config: RunConfig) -> None:
    """Of services that somebody else started."""
    if isinstance(config.rollout.servers, RemoteServers):
        remote_token(config)
    if isinstance(config.verify, RemoteVerify):
        read_token(Path(config.verify.token_file))
    if isinstance(config.model_judge, EndpointJudge):
        read_judge_token(config.model_judge.token_file)


def _check_space(
    config: RunConfig, shape: ModelShape, run_dir: RunDir, tell: Callable[[str], object]
) -> None:
    """Checkpoints on disk, less those that a resumed run has, and two arenas in shared memory must fit."""
    checkpoint = shape.num_parameters * (12 + (2 if config.train.precision == "bf16" else 4))
    missing = max(0, checkpoint * config.checkpoint.most_on_disk - _checkpoint_bytes(run_dir))
    needs = [(_existing(run_dir.root), missing, "checkpoints")]
    if isinstance(config.publish, ArenaPublish):
        needs.append((Path(config.publish.directory), 2 * _arena_bytes(config, shape), "weight arenas"))
    if isinstance(config.publish, FilesPublish):
        needs.append(
            (_existing(Path(config.publish.folder)), 2 * _arena_bytes(config, shape), "weight files")
        )
    tell(f"{'checkpoint':<12} {checkpoint / _GIB:.1f} GiB over all trainer hosts while one is written")
    for folder, need, what in needs:
        if not folder.is_dir():
            raise ConfigError(f"publish.directory: {folder} is not a directory; give one in shared memory")
        free = shutil.disk_usage(folder).free
        if free < need:
            raise InputError(
                f"{folder}: {what} need {need / _GIB:.1f} GiB and {free / _GIB:.1f} GiB are free; "
                "free some space or choose another place"
            )
        tell(f"{what:<12} {need / _GIB:.1f} GiB in {folder} ({free / _GIB:.0f} GiB free)")


def _arena_bytes(config: RunConfig, shape: ModelShape) -> int:
    width = 2 if config.train.precision == "bf16" else 4
    scales = scales_for(shape, config.publish.weights)
    sizes = hf_tensors(shape)
    saved = (width - 1) * sum(prod(sizes[name]) for name in scales)
    return width * shape.num_parameters - saved + 4 * sum(prod(scale.sizes) for scale in scales.values())


def _checkpoint_bytes(run_dir: RunDir) -> int:
    """Of those that a resumed run keeps or replaces; damaged ones stay beside them."""
    folders = [path for path in run_dir.checkpoints.glob("step_*") if path.suffix != ".damaged"]
    return sum(file.stat().st_size for folder in folders for file in folder.rglob("*") if file.is_file())


def _existing(path: Path) -> Path:
    """The nearest existing ancestor, whose file system the path will lie on."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path
