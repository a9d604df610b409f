"""The file format: no holes, page-aligned data, and damage told by name."""

import msgspec
import pytest

from apriel_mcore.bridge.tensorfile import contents, lay_out
from apriel_mcore.errors import InputError

TENSORS = {"a": (3, 5), "norm": (7,), "b": (2, 2)}


def file_of(header: dict[str, object], data_bytes: int) -> memoryview:
    text = msgspec.json.encode(header)
    return memoryview(len(text).to_bytes(8, "little") + text + bytes(data_bytes))


def test_tensors_follow_each_other_from_a_page_boundary() -> None:
    opening, size = lay_out(TENSORS, "bfloat16")
    stored = contents(memoryview(opening + bytes(size - len(opening))), where="x")
    assert len(opening) % 4096 == 0
    assert list(stored) == list(TENSORS)
    assert {name: tensor.sizes for name, tensor in stored.items()} == TENSORS
    ends = [tensor.stop for tensor in stored.values()]
    assert [tensor.start for tensor in stored.values()] == [len(opening), *ends[:-1]]
    assert ends[-1] == size == len(opening) + 2 * (15 + 7 + 4)


def test_a_header_of_more_than_a_page_stays_aligned() -> None:
    opening, _ = lay_out({f"layer.{i}.weight": (4,) for i in range(500)}, "float32")
    assert len(opening) > 4096
    assert len(opening) % 4096 == 0


F32_1 = {"dtype": "F32", "shape": [1]}


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (memoryview(b"abc"), "cut short at 3 bytes"),
        (memoryview((99).to_bytes(8, "little") + b"{}"), "cut short"),
        (memoryview((2).to_bytes(8, "little") + b"[["), "damaged safetensors header"),
        (memoryview((9).to_bytes(8, "little") + b'{"\xc2a":{}}'), "damaged safetensors header"),
        (
            file_of({"a": {"dtype": "F8_E5M2", "shape": [1], "data_offsets": [0, 1]}}, 1),
            "a has dtype F8_E5M2",
        ),
        (file_of({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, 4), "a is damaged"),
        (file_of({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, 4), "a is damaged"),
        (file_of({"a": {"dtype": "F32", "shape": [2]}}, 8), "data_offsets"),
        (file_of({"a": F32_1 | {"data_offsets": [-4, 0]}}, 0), "a starts at byte"),
        (file_of({"a": F32_1 | {"data_offsets": [4, 8]}}, 8), "a starts at byte"),
        (
            file_of({"a": F32_1 | {"data_offsets": [0, 4]}, "b": F32_1 | {"data_offsets": [0, 4]}}, 4),
            "b starts at byte .* names a tensor twice",
        ),
        (file_of({"a": F32_1 | {"data_offsets": [0, 4]}}, 6), "2 bytes after the last tensor"),
    ],
)
def test_damage_is_named(file: memoryview, message: str) -> None:
    with pytest.raises(InputError, match=rf"^weights\.safetensors.*{message}"):
        contents(file, where="weights.safetensors")
