"""A header whose 16-bit dtype is not config.json's is refused by tensor name; wider floats may stay."""

import json
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

from apriel_mcore.convert.hf_folder import HfFolder
from apriel_mcore.errors import InputError
from tests.convert.conftest import Convert
from tests.convert.folders import change_config, read_tensors, write_folder, write_tensors

DOWN = "model.layers.2.mlp.down_proj.weight"
NORM = "model.layers.2.input_layernorm.weight"


def relabel(folder: Path, code: str, names: Iterable[str]) -> None:
    """Another dtype in the header of model.safetensors, over the same bytes."""
    path = folder / "model.safetensors"
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    for name in names:
        header[name]["dtype"] = code
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("every", [False, True], ids=["one", "all"])
@pytest.mark.parametrize("llava", [False, True], ids=["llama", "llava"])
def test_bfloat16_called_float16(
    convert: Convert, tmp_path: Path, dtype: str, every: bool, llava: bool
) -> None:
    """As bytes they fit, and as float16 they are finite: other numbers."""
    write_folder(tmp_path / "hf", llava=llava)
    prefix = "language_model." if llava else ""
    names = [name for name in read_tensors(tmp_path / "hf") if name.startswith(prefix)]
    relabel(tmp_path / "hf", "F16", names if every else [prefix + DOWN])
    words = r"is float16.*config\.json's dtype is bfloat16" if every else f"hf: {DOWN} is float16, config"
    with pytest.raises(InputError, match=words):
        convert.to_mcore(tmp_path / "hf", tmp_path / "mcore", dtype=dtype)
    assert not list(tmp_path.glob("mcore*"))


def test_the_older_key_counts(tmp_path: Path) -> None:
    write_folder(tmp_path / "hf", dtype=torch.float16)
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    config["torch_dtype"] = config.pop("dtype")
    (tmp_path / "hf" / "config.json").write_text(json.dumps(config))
    HfFolder.open(tmp_path / "hf")
    relabel(tmp_path / "hf", "BF16", [DOWN])
    with pytest.raises(InputError, match=f"{DOWN} is bfloat16, config.json's dtype is float16"):
        HfFolder.open(tmp_path / "hf")


@pytest.mark.parametrize("said", [None, "float32"])
def test_two_kinds_where_config_names_neither(tmp_path: Path, said: str | None) -> None:
    """One kind alone may be the truth; two never are."""
    write_folder(tmp_path / "hf")
    change_config(tmp_path / "hf", dtype=said)
    HfFolder.open(tmp_path / "hf")
    relabel(tmp_path / "hf", "F16", [DOWN])
    with pytest.raises(InputError, match=f"{DOWN} is float16, the other 16-bit tensors are bfloat16"):
        HfFolder.open(tmp_path / "hf")


def test_float32_beside_bfloat16_stays_a_choice(convert: Convert, tmp_path: Path) -> None:
    """Norms that a publisher kept wider: --dtype decides, as before."""
    tensors = write_folder(tmp_path / "hf")
    write_tensors(tmp_path / "hf", tensors | {NORM: tensors[NORM].float()}, 1)
    convert.to_mcore(tmp_path / "hf", tmp_path / "mcore", dtype="bfloat16")
    convert.to_hf(tmp_path / "mcore", tmp_path / "back")
    assert torch.equal(read_tensors(tmp_path / "back")[NORM], tensors[NORM])
