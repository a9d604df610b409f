"""How does a safetensors file lie in memory? Its header, written before any weight and read back.

    8 bytes: header length | JSON header, padded with spaces | tensors, one behind the other

The format allows no holes between tensors; padding the header is allowed, and puts the first tensor on
a page boundary.
"""

from collections.abc import Iterable, Mapping
from math import prod
from typing import Any, Literal

import msgspec

from apriel_mcore.bridge.layouts import Sizes
from apriel_mcore.errors import InputError

Dtype = Literal["bfloat16", "float16", "float32", "float8_e4m3"]
type Dtypes = Dtype | Mapping[str, Dtype]
"""One for all tensors, or each tensor's own."""

_CODES: dict[Dtype, str] = {"bfloat16": "BF16", "float16": "F16", "float32": "F32", "float8_e4m3": "F8_E4M3"}
_DTYPES: dict[str, Dtype] = {code: dtype for dtype, code in _CODES.items()}
ITEMSIZE: dict[Dtype, int] = {"bfloat16": 2, "float16": 2, "float32": 4, "float8_e4m3": 1}
"""Bytes of one element."""
_PAGE = 4096
_LENGTH_BYTES = 8


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """One tensor of a file."""

    dtype: Dtype
    sizes: Sizes
    start: int
    """Byte offset in the file."""
    stop: int

    @property
    def num_bytes(self) -> int:
        """Bytes of its elements."""
        return self.stop - self.start


def dtypes_of(names: Iterable[str], dtypes: Dtypes) -> dict[str, Dtype]:
    """Each tensor's dtype, in the order of the names."""
    return {name: dtypes if isinstance(dtypes, str) else dtypes[name] for name in names}


def lay_out(tensors: Mapping[str, Sizes], dtypes: Dtypes) -> tuple[bytes, int]:
    """The opening bytes of a file of `tensors` in the order given, and the size of the whole file.

    Every tensor begins at a multiple of its element's size where wider elements come before narrower ones.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for (name, sizes), dtype in zip(tensors.items(), dtypes_of(tensors, dtypes).values(), strict=True):
        stop = offset + prod(sizes) * ITEMSIZE[dtype]
        header[name] = {"dtype": _CODES[dtype], "shape": sizes, "data_offsets": (offset, stop)}
        offset = stop
    text = msgspec.json.encode(header)
    length = -(-(_LENGTH_BYTES + len(text)) // _PAGE) * _PAGE - _LENGTH_BYTES
    opening = length.to_bytes(_LENGTH_BYTES, "little") + text.ljust(length)
    return opening, len(opening) + offset


class _Entry(msgspec.Struct, frozen=True):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


def contents(file: memoryview, *, where: str) -> dict[str, Stored]:
    """The tensors of a whole safetensors file, by name; InputError if it is damaged or cut short, or if its
    tensors overlap or leave bytes out."""
    data_start = _LENGTH_BYTES + int.from_bytes(file[:_LENGTH_BYTES], "little")
    if len(file) < _LENGTH_BYTES or data_start > len(file):
        raise InputError(f"{where}: not a safetensors file, or cut short at {len(file)} bytes")
    try:
        header = msgspec.json.decode(file[_LENGTH_BYTES:data_start], type=dict[str, msgspec.Raw])
        header.pop("__metadata__", None)
        entries = {name: msgspec.json.decode(raw, type=_Entry) for name, raw in header.items()}
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{where}: damaged safetensors header: {error}") from None
    stored = {
        name: _stored(name, entry, data_start, len(file), where=where) for name, entry in entries.items()
    }
    _check_gapless(stored, data_start, len(file), where=where)
    return stored


def _check_gapless(stored: Mapping[str, Stored], data_start: int, file_size: int, *, where: str) -> None:
    end = data_start
    for name, tensor in sorted(stored.items(), key=lambda item: (item[1].start, item[1].stop)):
        if tensor.start != end:
            raise InputError(
                f"{where}: {name} starts at byte {tensor.start}, the tensor before it ends at {end}: "
                "the header is damaged, or names a tensor twice"
            )
        end = tensor.stop
    if end != file_size:
        raise InputError(f"{where}: {file_size - end} bytes after the last tensor belong to none")


def refuse_fp8(stored: Mapping[str, Stored], *, where: str) -> None:
    """InputError when a model folder holds FP8 tensors: whoever reads them plainly loses their scales."""
    quantised = [name for name, tensor in stored.items() if tensor.dtype == "float8_e4m3"]
    if quantised:
        raise InputError(
            f"{where}: {quantised[0]} has dtype F8_E4M3; give the folder that the model was quantised from"
        )


def _stored(name: str, entry: _Entry, data_start: int, file_size: int, *, where: str) -> Stored:
    if entry.dtype not in _DTYPES:
        raise InputError(
            f"{where}: {name} has dtype {entry.dtype}; convert it to one of {', '.join(_DTYPES)}"
        )
    dtype = _DTYPES[entry.dtype]
    start, stop = (data_start + offset for offset in entry.data_offsets)
    if stop > file_size or stop - start != prod(entry.shape) * ITEMSIZE[dtype]:
        raise InputError(
            f"{where}: {name} is damaged: {stop - start} bytes at {start} for {entry.shape} {dtype}, "
            f"in a file of {file_size} bytes"
        )
    return Stored(dtype=dtype, sizes=entry.shape, start=start, stop=stop)
