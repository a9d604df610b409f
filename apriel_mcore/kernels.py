"""Which fused kernels will Megatron-Core find in this environment, and does it mistake a package for another?

Megatron tries Transformer Engine's optimizer, then NVIDIA apex's, then torch's, by importing them, and takes
any package of the name apex for NVIDIA's. PyPI's `apex` is an old web toolkit: with it installed Megatron
chooses layers that do not exist. So nothing is imported here: files say what is there, and before it starts.
"""

import importlib.metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import msgspec

from apriel_mcore.config.schema import EngineFp8, Train
from apriel_mcore.errors import ConfigError
from apriel_mcore.fp8 import kind_of

Apex = Literal["absent", "nvidia", "without_extensions", "unrelated"]

_ENGINE_LIBRARIES = ("libtransformer_engine", "transformer_engine_torch")
_ENGINE_FOLDERS = ("..", ".", "wheel_lib")
"""Where Transformer Engine looks for its libraries, seen from its package."""
_INSTALL_ENGINE = "install the `gpu` extra, or use a container image that has it"
_BUILD_APEX = "build NVIDIA/apex from its source with APEX_CPP_EXT=1 APEX_CUDA_EXT=1, or `pip uninstall apex`"


class Kernels(msgspec.Struct, frozen=True, kw_only=True):
    """What is installed."""

    transformer_engine: str
    """Version; empty where it is absent."""
    engine_is_whole: bool
    """Its compiled libraries are there too. Without them already `import megatron.core` fails."""
    apex: Apex

    @property
    def optimizer(self) -> str:
        """Module and class that will do AdamW's arithmetic, as Megatron chooses."""
        if self.transformer_engine:
            return "transformer_engine.FusedAdam"
        return "apex.FusedAdam" if self.apex == "nvidia" else "torch.AdamW(fused)"


def find() -> Kernels:
    """Of this Python environment; nothing is imported."""
    folders = _folders("transformer_engine")
    return Kernels(
        transformer_engine=_version("transformer-engine") if folders else "",
        engine_is_whole=all(_has_library(folders, name) for name in _ENGINE_LIBRARIES),
        apex=_apex(),
    )


def require(kernels: Kernels, train: Train) -> None:
    """ConfigError where Megatron would take the wrong package, or train without what the recipe asks for."""
    if kernels.apex == "unrelated":
        raise ConfigError(
            "the installed package `apex` is not NVIDIA's, and Megatron-Core would take it for that: "
            "`pip uninstall apex`"
        )
    if kernels.transformer_engine and not kernels.engine_is_whole:
        raise ConfigError(
            f"Transformer Engine {kernels.transformer_engine} is installed without its compiled libraries, "
            f"and Megatron-Core cannot start: `pip uninstall transformer-engine`, or {_INSTALL_ENGINE}"
        )
    if kernels.apex == "without_extensions" and not kernels.transformer_engine:
        raise ConfigError(
            f"NVIDIA apex is installed without its CUDA extensions, and its optimizer cannot run: "
            f"{_BUILD_APEX}"
        )
    if train.device == "cuda" and not kernels.transformer_engine:
        wants_fp8 = isinstance(train.fp8, EngineFp8)
        key = f'train.fp8.kind = "{kind_of(train.fp8)}"' if wants_fp8 else 'train.device = "cuda"'
        raise ConfigError(f"{key} needs Transformer Engine, which is not installed: {_INSTALL_ENGINE}")


def describe(kernels: Kernels, train: Train) -> str:
    """One line: what trains, or what a machine with GPUs still needs."""
    if train.device == "cuda" and not kernels.transformer_engine:
        return "Transformer Engine is not installed here; the trainer's nodes need it"
    engine = kernels.transformer_engine
    layers = f"Transformer Engine {engine}" if train.device == "cuda" else "Megatron's local layers"
    return f"{layers}, optimizer {kernels.optimizer}"


def _apex() -> Apex:
    if find_spec("apex") is None:
        return "absent"
    if not any((folder / "optimizers" / "fused_adam.py").is_file() for folder in _folders("apex")):
        return "unrelated"
    return "nvidia" if find_spec("amp_C") is not None else "without_extensions"


def _folders(package: str) -> list[Path]:
    """Of a package, without importing it; none where it is absent."""
    spec = find_spec(package)
    return [] if spec is None else [Path(folder) for folder in spec.submodule_search_locations or []]


def _has_library(folders: list[Path], name: str) -> bool:
    return any(
        next((folder / place).glob(f"{name}*.so"), None) for folder in folders for place in _ENGINE_FOLDERS
    )


def _version(distribution: str) -> str:
    """Container images may hold the package without its metadata."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"
