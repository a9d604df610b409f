"""Every trained rollout and group is counted once, in its place."""

from pathlib import Path

import numpy as np

from apriel_mcore.bench.made_run import make_run
from apriel_mcore.views.shapes import MAX_BUCKETS, servers, shapes
from apriel_mcore.views.shelf import Shelf


def shelf_of(folder: Path, steps: int) -> Shelf:
    shelf = Shelf(make_run(folder, steps=steps, groups=3, group_size=4) / "rollouts")
    shelf.refresh()
    return shelf


def test_counts_add_up(tmp_path: Path) -> None:
    shelf = shelf_of(tmp_path / "run", 200)
    found = shapes(shelf, 200)
    assert len(found.first_B) <= MAX_BUCKETS + 1
    assert np.sum([np.sum(counts) for counts in found.lengths.values()]) == len(shelf)
    assert np.sum([np.sum(counts) for counts in found.difficulty.values()]) == 600
    assert np.sum(list(found.truncated.values())) == shelf.column("truncated").sum()
    code = shelf.words["domain"].index("math")
    of_math = shelf.column("domain") == code
    first = of_math & (shelf.column("step") < found.width)
    assert np.sum(found.lengths["math"][0]) == first.sum()


def test_steps_that_a_resume_took_back_are_not_counted(tmp_path: Path) -> None:
    shelf = shelf_of(tmp_path / "run", 8)
    assert np.sum([np.sum(counts) for counts in shapes(shelf, 5).lengths.values()]) == 5 * 3 * 4


def test_a_slow_server_is_seen(tmp_path: Path) -> None:
    rows = {row["server"]: row for row in servers(shelf_of(tmp_path / "run", 20), 20)}
    assert rows["server-0"]["slowness"] == 1.0
    assert rows["server-2"]["slowness"] > 2
    assert sum(row["rollouts"] for row in rows.values()) == 20 * 3 * 4


def test_a_run_without_rollouts_has_empty_shapes(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.refresh()
    assert shapes(shelf, 0).lengths == {}
    assert servers(shelf, 0) == []
