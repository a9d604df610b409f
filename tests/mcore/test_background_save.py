"""What breaks while bytes are written reaches every rank's loop; a full disk is waited for."""

import errno
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from apriel_mcore import checkpoint_folder
from apriel_mcore.bench.ranks import run_ranks
from apriel_mcore.errors import CheckpointError
from tests.mcore.llama import hf_model, load_by_hand
from tests.mcore.test_checkpoint import LOOP, learner_at, save, saver_of, step

pytestmark = pytest.mark.engine
ROOT = Path(__file__).parents[2]


def error_of_save(root: Path, learner: Any) -> str:
    saver = saver_of(root, learner)
    saver.begin(learner.step, LOOP)
    with pytest.raises(CheckpointError) as caught:
        saver.advance(wait=True)
    saver.close()
    return str(caught.value)


def one_rank_fails(root: Path) -> str:
    from megatron.core.dist_checkpointing.validation import verify_integrity_manifest

    from apriel_mcore.mcore.staged import Staged

    learner = learner_at("fp32", {"data": 2})
    load_by_hand(learner, hf_model().state_dict())
    step(learner, 0)
    save(root, learner)
    verify_integrity_manifest(str(root / "step_000001"))  # Megatron's loader takes the manifest as its own
    step(learner, 1)

    def broken(staged: Staged) -> Any:
        raise OSError(errno.EIO, "Input/output error")

    if learner.ranks.world == 1:
        Staged.write = broken
    return error_of_save(root, learner)


def test_the_error_of_one_rank_reaches_all(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    root = tmp_path / "checkpoints"
    for message in run_ranks(2, one_rank_fails, root, folder=tmp_path):
        assert "step_000002: not saved (rank 1: OSError: [Errno 5] Input/output error)" in message
    (kept,) = checkpoint_folder.complete(root)
    assert kept.name == "step_000001" and checkpoint_folder.defects(kept) == []


def a_disk_that_lies(root: Path) -> str:
    from megatron.core.dist_checkpointing.strategies.filesystem_async import FileSystemWriterAsync

    learner = learner_at("fp32", {})
    load_by_hand(learner, hf_model().state_dict())
    step(learner, 0)
    write = FileSystemWriterAsync.write_preloaded_data

    def lie(*args: Any, **kwargs: Any) -> Any:
        results = write(*args, **kwargs)
        largest = max(results[1], key=lambda one: one.storage_data.length).storage_data
        with open(kwargs["write_bucket"][0], "r+b") as file:
            file.seek(largest.offset + largest.length // 2)
            byte = file.read(1)[0]
            file.seek(-1, 1)
            file.write(bytes([byte ^ 1]))
        return results

    FileSystemWriterAsync.write_preloaded_data = staticmethod(lie)
    return error_of_save(root, learner)


def test_what_is_read_back_different_is_no_checkpoint(tmp_path: Path) -> None:
    (message,) = run_ranks(1, a_disk_that_lies, tmp_path / "checkpoints", folder=tmp_path)
    assert "was read back different from what was written" in message
    assert not checkpoint_folder.complete(tmp_path / "checkpoints")


def test_a_full_disk_is_waited_for(tmp_path: Path) -> None:
    mounted = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    small = f"mount -t tmpfs -o size=16m none {tmp_path}"
    if subprocess.run([*mounted, small], capture_output=True).returncode:
        pytest.skip("this user may not mount a file system of its own")
    done = subprocess.run(
        [*mounted, f"{small} && exec {sys.executable} -m tests.mcore.full_disk {tmp_path}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "saved" in done.stdout
