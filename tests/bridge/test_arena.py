"""An arena is a safetensors file that ranks share, that alternates, and that leaves nothing behind."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from apriel_mcore.bridge.arena import Arena, ArenaPair
from apriel_mcore.errors import BridgeError, InputError

TENSORS = {"a.weight": (3, 5), "norm.weight": (7,), "b.weight": (2, 4)}


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_safetensors_loads_what_was_written_through_the_views(tmp_path: Path, dtype: str) -> None:
    arena = Arena.create(
        tmp_path / "x.safetensors", TENSORS, "bfloat16" if dtype == "bfloat16" else "float32"
    )
    for view in arena.views.values():
        view.copy_(torch.randn(view.shape))
    loaded = load_file(arena.path)
    assert loaded.keys() == TENSORS.keys()
    for name, tensor in loaded.items():
        assert str(tensor.dtype) == f"torch.{dtype}"
        assert torch.equal(tensor, arena.views[name])
    with safe_open(arena.path, "pt") as file:
        assert file.metadata() == {"format": "pt"}
    arena.close()


def test_an_attached_rank_writes_into_the_same_memory(tmp_path: Path) -> None:
    first = Arena.create(tmp_path / "x.safetensors", TENSORS, "float32")
    other = Arena.attach(tmp_path / "x.safetensors")
    other.views["b.weight"].fill_(3.0)
    assert first.views["b.weight"].eq(3.0).all()
    assert first.views["a.weight"].eq(0.0).all()


def test_only_the_creator_removes_the_file(tmp_path: Path) -> None:
    first = Arena.create(tmp_path / "x.safetensors", TENSORS, "float32")
    other = Arena.attach(first.path)
    other.close()
    assert first.path.exists()
    first.close()
    assert not first.path.exists()


def test_attaching_to_nothing_is_a_bridge_error(tmp_path: Path) -> None:
    with pytest.raises(BridgeError, match=r"absent\.safetensors"):
        Arena.attach(tmp_path / "absent.safetensors")


def test_a_pair_takes_turns(tmp_path: Path) -> None:
    pair = ArenaPair.create(tmp_path, "run", TENSORS, "float32")
    attached = ArenaPair.attach(tmp_path, "run")
    seen: list[str] = []
    for _ in range(4):
        assert pair.writable.path == attached.writable.path
        seen.append(pair.writable.path.name)
        pair.swap()
        attached.swap()
    assert seen == ["run-0.safetensors", "run-1.safetensors"] * 2
    pair.close()
    assert list(tmp_path.iterdir()) == []


def test_a_dead_run_is_replaced_and_its_readers_keep_their_memory(tmp_path: Path) -> None:
    dead = ArenaPair.create(tmp_path, "run", TENSORS, "float32")
    dead.writable.views["norm.weight"].fill_(1.0)
    reborn = ArenaPair.create(tmp_path, "run", TENSORS, "float32")
    assert reborn.writable.views["norm.weight"].eq(0.0).all()
    assert dead.writable.views["norm.weight"].eq(1.0).all()


def test_no_room_is_an_input_error_that_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"two weight arenas need 8000000\.00 GB.*publish\.directory"):
        ArenaPair.create(tmp_path, "run", {"huge": (10**9, 10**6)}, "float32")
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_that_fills_up_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot hold"):
        Arena.create(tmp_path / "x.safetensors", {"huge": (10**9, 10**6)}, "float32")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_directory_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="absent"):
        ArenaPair.create(tmp_path / "absent", "run", TENSORS, "float32")
