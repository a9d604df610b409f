"""LiveCodeBench's private tests: base64 of zlib of a pickled text, opened without running anything."""

import base64
import binascii
import io
import pickle
import zlib
from typing import Any, Never

from apriel_mcore.data.item import Unusable

MAX_BYTES = 256 << 20
"""Unpacked; a bomb ends here."""


class _NoGlobals(pickle.Unpickler):
    """Admits plain values only: any class or function in the pickle is refused before it is looked up."""

    def find_class(self, module_name: str, global_name: str, /) -> Never:
        raise pickle.UnpicklingError(f"refuses {module_name}.{global_name}")

    def persistent_load(self, pid: Any, /) -> Never:
        raise pickle.UnpicklingError("refuses persistent ids")


def unpack_tests(packed: str) -> str:
    """The JSON text inside; text that is JSON already comes back as it is. Unusable otherwise."""
    if packed.lstrip().startswith("["):
        return packed
    try:
        unzip = zlib.decompressobj()
        content = unzip.decompress(base64.b64decode(packed, validate=True), MAX_BYTES)
        if unzip.unconsumed_tail:
            raise Unusable("no_answer", f"private tests unpack to more than {MAX_BYTES} bytes")
        text = _NoGlobals(io.BytesIO(content)).load()
    except (binascii.Error, zlib.error, pickle.UnpicklingError, EOFError, ValueError, IndexError) as error:
        raise Unusable("no_answer", f"private tests cannot be unpacked: {error}") from None
    if not isinstance(text, str):
        raise Unusable("no_answer", "private tests are not a text")
    return text
