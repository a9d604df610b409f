"""Peak memory is that of a few tensors, not of the model."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from apriel_mcore.bench.convert import make_model
from apriel_mcore.bridge.shape import ModelShape

SHAPE = ModelShape(
    family="llama",
    hidden_size=512,
    num_layers=0,
    num_heads=8,
    num_kv_heads=4,
    head_dim=64,
    ffn_size=1536,
    vocab_size=1000,
    tied=False,
    rope_theta=1e4,
    norm_eps=1e-5,
    max_positions=128,
)
IMPORTS = """
import sys
from pathlib import Path
from apriel_mcore.config.schema import Parallel
from apriel_mcore.convert import report, scratch, to_hf, to_mcore, workers
root = Path(sys.argv[1])
"""
SMALL_ROOM = """
table = int(sys.argv[2])
workers.ROOM = table + table // 2
scratch._KEPT = table // 8
print(report.peak_rss())
"""
CONVERT = """
there = to_mcore.convert(
    root / "hf", root / "mcore", parallel=Parallel(tensor=2), dtype=None, probe=False
)
back = to_hf.convert(
    root / "mcore", root / "back", like=None, dtype=None, max_file_bytes=1 << 30, probe=False
)
print(there.num_bytes, there.peak_rss_bytes, back.peak_rss_bytes)
"""
GROWTH = 16 << 20
"""Bookkeeping grows with the number of tensors, a few kilobytes each."""


def run(program: str, *arguments: str) -> list[int]:
    """The numbers that a Python process of its own prints."""
    child = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return [int(word) for word in child.stdout.split()]


def test_peak_memory_does_not_grow_with_the_model(tmp_path: Path) -> None:
    sizes, peaks = [], []
    for layers in (8, 16, 32):
        root = tmp_path / str(layers)
        make_model(root / "hf", msgspec.structs.replace(SHAPE, num_layers=layers))
        num_bytes, *both = run(IMPORTS + CONVERT, str(root))
        sizes.append(num_bytes)
        peaks.append(both)
    assert sizes == pytest.approx([50e6, 100e6, 200e6], rel=0.1)
    print(peaks)
    for direction in (0, 1):
        found = [both[direction] for both in peaks]
        assert max(found) - min(found) < GROWTH, (sizes, peaks)


def test_embedding_and_head_are_not_held_together(tmp_path: Path) -> None:
    """Without a limit on what is in work, workers would take both at once; without one on what is kept, the
    first would still be there when the second comes."""
    shape = msgspec.structs.replace(SHAPE, num_layers=1, hidden_size=1024, vocab_size=1 << 16)
    table = 2 * shape.hidden_size * shape.vocab_size
    make_model(tmp_path / "hf", shape)
    before, _, there, back = run(IMPORTS + SMALL_ROOM + CONVERT, str(tmp_path), str(table))
    print([(peak - before) / table for peak in (there, back)])
    assert max(there, back) - before < 1.9 * table  # a table, and the window of a file that is read back
