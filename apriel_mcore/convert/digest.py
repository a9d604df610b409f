"""Which bytes is a tensor made of? Its BLAKE3 digest: cryptographic, and as fast as memory allows one core.

A report outlives the conversion and is read by people who were not there, so its digest must not be one that
two different tensors can be made to share; bridge/receipt.py guards a single hand-over and works on GPUs too.
"""

from pathlib import Path

from blake3 import blake3
from torch import Tensor

from apriel_mcore.convert.mapped import windows
from apriel_mcore.convert.scratch import bytes_of


def digest(tensor: Tensor) -> str:
    """64 hex digits of the memory of a contiguous CPU tensor."""
    return blake3(bytes_of(tensor)).hexdigest()


def digest_in_file(path: Path, start: int, num_bytes: int, *, what: str) -> str:
    """The same of a stretch of a file, never held whole; InputError naming `what` if it ends before."""
    found = blake3()
    for window in windows(path, start, num_bytes, what=what):
        found.update(window)
    return found.hexdigest()
