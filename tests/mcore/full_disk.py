"""What does a save do without room? `python -m tests.mcore.full_disk ROOT`, where ROOT is a small tmpfs.

Prints a line when all of it went as it should.
"""

import shutil
import sys
import time
from pathlib import Path

from apriel_mcore import checkpoint_folder
from apriel_mcore.mcore import background_save
from tests.mcore.llama import hf_model, load_by_hand
from tests.mcore.test_checkpoint import LOOP, learner_at, save, saver_of, step


def fill(root: Path, leave: int) -> Path:
    """Ballast that leaves `leave` bytes."""
    ballast = root / "ballast"
    with ballast.open("wb") as file:
        for _ in range((shutil.disk_usage(root).free - leave) // 4096):
            file.write(bytes(4096))
    return ballast


def main() -> None:
    root = Path(sys.argv[1])
    background_save.RETRY_S = 0.05
    learner = learner_at("fp32", {})
    load_by_hand(learner, hf_model().state_dict())
    step(learner, 0)
    save(root, learner)

    told: list[str] = []
    saver = saver_of(root, learner, told.append)
    for leave in (100_000, 0):  # room for a part of the first file; for not even a folder
        told.clear()
        step(learner, learner.step)
        ballast = fill(root, leave)
        saver.begin(learner.step, LOOP)
        while not told:
            assert not saver.advance(wait=False)
            time.sleep(0.01)
        assert "the disk is full" in told[0]
        step(learner, learner.step)  # training goes on
        assert not saver.advance(wait=False)
        ballast.unlink()
        assert saver.advance(wait=True)
        assert len(told) == 2 and "space again" in told[1]

    told.clear()  # room for the ranks' files, none for the index
    saver.begin(learner.step, LOOP)
    pending = saver._pending
    assert pending
    pending.written.result()
    ballast = fill(root, 0)
    assert not saver.advance(wait=False)
    assert "the disk is full" in told[0]
    ballast.unlink()
    assert saver.advance(wait=True)
    saver.close()
    for folder in checkpoint_folder.complete(root):
        assert checkpoint_folder.defects(folder) == []
    print("saved", [folder.name for folder in checkpoint_folder.complete(root)])


if __name__ == "__main__":
    main()
