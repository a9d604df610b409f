"""What became of each tensor on its way? Checked and digested as read, compared as written.

read --see--> digest, finite, as recorded, cast --written, read back--> compare --> TensorRecord
"""

import time
from collections.abc import Mapping
from math import prod

from torch import Tensor

from apriel_mcore.bridge.layouts import Sizes
from apriel_mcore.bridge.tensorfile import Dtype
from apriel_mcore.convert.digest import digest
from apriel_mcore.convert.report import TensorRecord
from apriel_mcore.convert.scratch import DTYPES, TORCH_DTYPES, is_finite
from apriel_mcore.errors import BridgeError, InputError


class Ledger:
    """The tensors of one file of the result."""

    def __init__(
        self, file: str, dtype: Dtype, recorded: Mapping[str, tuple[Dtype, str]], *, where: str
    ) -> None:
        """`recorded` is what the source's own conversion.json says of its tensors; `where` opens errors."""
        self._file = file
        self._dtype: Dtype = dtype
        self._recorded = recorded
        self._where = where
        self._read: dict[str, tuple[Dtype, str]] = {}
        self._wanted: dict[str, str] = {}
        self._seconds: dict[str, float] = {}
        self._watched: dict[str, int] = {}
        self._since = time.monotonic()

    def watch(self, elements: Mapping[str, int]) -> None:
        """From now on time is spent on these tensors, shared by size."""
        now = time.monotonic()
        total = sum(self._watched.values())
        for name, count in self._watched.items():
            spent = (now - self._since) * count / total
            self._seconds[name] = self._seconds.get(name, 0.0) + spent
        self._watched, self._since = dict(elements), now

    def see(self, name: str, tensor: Tensor, cast_into: Tensor) -> Tensor:
        """A tensor from the source, in the result's dtype: itself, or cast into the memory given.

        InputError when it holds NaN or infinity, before or after the cast, or when its bytes are not those
        that an earlier conversion recorded.
        """
        if not is_finite(tensor):
            raise InputError(f"{self._where}: {name} holds NaN or infinite values")
        dtype, found = DTYPES[tensor.dtype], digest(tensor)
        if name in self._recorded and self._recorded[name] != (dtype, found):
            raise InputError(
                f"{self._where}: {name} is {dtype} with digest {found}, the conversion.json there says "
                f"{' with '.join(self._recorded[name])}: changed or damaged since; remove conversion.json "
                "if it was meant"
            )
        self._read[name] = (dtype, found)
        if dtype != self._dtype:
            tensor = cast_into.copy_(tensor)
            if not is_finite(tensor):
                raise InputError(f"{self._where}: {name} does not fit {self._dtype}: values become infinite")
            found = digest(tensor)
        self._wanted[name] = found
        return tensor

    def compare(self, name: str, sizes: Sizes, found: str) -> TensorRecord:
        """The digest of a tensor just read back; BridgeError when it is not what was to be written."""
        if found != self._wanted[name]:
            raise BridgeError(
                f"{self._file}: {name} was written with digest {self._wanted[name]} and read back with "
                f"{found}: do not trust this disk or memory"
            )
        dtype_before, digest_before = self._read[name]
        now = time.monotonic()
        self._seconds[name] += now - self._since
        self._since = now
        return TensorRecord(
            name=name,
            sizes=sizes,
            dtype_before=dtype_before,
            dtype_after=self._dtype,
            digest_before=digest_before,
            digest_after=found,
            num_bytes=prod(sizes) * TORCH_DTYPES[self._dtype].itemsize,
            file=self._file,
            seconds=round(self._seconds[name], 6),
        )
