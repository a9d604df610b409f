"""What is installed is told from files, and what Megatron would mistake is refused before anything starts."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from apriel_mcore import kernels
from apriel_mcore.config.schema import Optimizer, TensorwiseFp8, Train
from apriel_mcore.errors import ConfigError

ROOT = Path(__file__).parents[1]
CPU = Train(num_steps=1, groups_per_step=1, seq_len=64, optimizer=Optimizer(lr=1e-6))
CUDA = msgspec.structs.replace(CPU, device="cuda")
FP8 = msgspec.structs.replace(CUDA, fp8=TensorwiseFp8())

WEB_TOOLKIT = ("apex/__init__.py", "apex/lib/__init__.py", "apex/lib/libapex.py")
NVIDIA = ("apex/__init__.py", "apex/optimizers/__init__.py", "apex/optimizers/fused_adam.py")
ENGINE = ("transformer_engine/__init__.py", "transformer_engine/pytorch/__init__.py")
LIBRARIES = (
    "transformer_engine/wheel_lib/transformer_engine_torch.cpython-312-x86_64-linux-gnu.so",
    "transformer_engine/wheel_lib/libtransformer_engine.so",
)


def installed(folder: Path, *files: str) -> None:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text('raise AssertionError("nothing may be imported")\n')


@pytest.mark.parametrize(
    ("files", "apex", "optimizer"),
    [
        ((), "absent", "torch.AdamW(fused)"),
        (WEB_TOOLKIT, "unrelated", "torch.AdamW(fused)"),
        (NVIDIA, "without_extensions", "torch.AdamW(fused)"),
        ((*NVIDIA, "amp_C.py"), "nvidia", "apex.FusedAdam"),
        ((*ENGINE, *LIBRARIES), "absent", "transformer_engine.FusedAdam"),
        ((*ENGINE, *LIBRARIES, *NVIDIA, "amp_C.py"), "nvidia", "transformer_engine.FusedAdam"),
    ],
)
def test_names_the_optimizer(
    files: tuple[str, ...], apex: str, optimizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(tmp_path, *files)
    monkeypatch.syspath_prepend(tmp_path)
    found = kernels.find()
    assert (found.apex, found.optimizer) == (apex, optimizer)
    assert found.engine_is_whole == (LIBRARIES[0] in files)


@pytest.mark.parametrize(
    ("files", "train", "words"),
    [
        (WEB_TOOLKIT, CPU, "`pip uninstall apex`"),
        ((*ENGINE, *LIBRARIES, *WEB_TOOLKIT), CUDA, "not NVIDIA's"),
        (NVIDIA, CPU, "without its CUDA extensions"),
        (ENGINE, CPU, "without its compiled libraries"),
        ((*ENGINE, LIBRARIES[1]), CUDA, "without its compiled libraries"),
        ((), CUDA, 'train.device = "cuda" needs Transformer Engine'),
        ((), FP8, 'train.fp8.kind = "tensorwise" needs Transformer Engine'),
        ((*NVIDIA, "amp_C.py"), FP8, 'train.fp8.kind = "tensorwise" needs Transformer Engine'),
    ],
)
def test_refuses_with_a_remedy(
    files: tuple[str, ...], train: Train, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(tmp_path, *files)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError) as error:
        kernels.require(kernels.find(), train)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("files", "train"),
    [
        ((), CPU),
        ((*NVIDIA, "amp_C.py"), CPU),
        ((*ENGINE, *LIBRARIES), FP8),
        ((*ENGINE, *LIBRARIES, *NVIDIA), CUDA),
    ],
)
def test_accepts_the_rest(
    files: tuple[str, ...], train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(tmp_path, *files)
    monkeypatch.syspath_prepend(tmp_path)
    kernels.require(kernels.find(), train)


@pytest.mark.parametrize("command", ["train", "check"])
def test_the_command_ends_with_2_and_writes_nothing(command: str, tmp_path: Path) -> None:
    installed(tmp_path, *WEB_TOOLKIT)
    recipe = ROOT / "recipes" / "quickstart.toml"
    ended = subprocess.run(
        [sys.executable, "-m", "apriel_mcore.cli", command, str(recipe)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"},
    )
    assert ended.returncode == 2
    assert "`pip uninstall apex`" in ended.stderr
    assert not (tmp_path / "runs").exists()
