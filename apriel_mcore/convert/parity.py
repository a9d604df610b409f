"""Does the converted model still say the same? Megatron's log-probs against transformers', in a child.

The child (parity_child.py) enters Megatron's CPU back end, which changes what torch.cuda means; this
process stays as it is. Where the model does not fit in memory the check is skipped, and the report says so.
"""

import subprocess
import sys
from pathlib import Path

import msgspec

from apriel_mcore.bridge import shape as model_shape
from apriel_mcore.convert.report import Parity
from apriel_mcore.errors import BridgeError, ProbeError

MAX_ABS_DIFF = 1e-3
"""Nats, of a single token in float32. Rounding stays far below; a wrong weight does not."""
_ENGINES_BYTES = 2 << 30
"""torch, Megatron and transformers themselves, and activations of the text."""
_MEGATRON_BYTES = 8
"""Float32 weights and the gradient buffer that a trainer comes with, for each parameter."""
_TRANSFORMERS_BYTES = 4


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What the child found."""

    tokens: int
    max_abs_diff: float
    mean_abs_diff: float
    seconds: float


def check(checkpoint: Path, folder: Path, *, num_elements: int, wanted: bool) -> Parity:
    """Compare both sides of a conversion; BridgeError when they disagree, ProbeError when nobody can tell.

    num_elements: of the folder's tensors, other modalities included.
    """
    if not wanted:
        return Parity(status="skipped", reason="not wanted (--no-probe)")
    parameters = model_shape.read(folder).num_parameters
    needed = _ENGINES_BYTES + max(_MEGATRON_BYTES * parameters, _TRANSFORMERS_BYTES * num_elements)
    available = _available_bytes()
    if needed > available:
        reason = f"needs {needed / 1e9:.1f} GB of memory, {available / 1e9:.1f} GB are available"
        return Parity(status="skipped", reason=reason)
    found = _in_child(checkpoint, folder)
    if not found.max_abs_diff <= MAX_ABS_DIFF:
        raise BridgeError(
            f"{checkpoint} and {folder}: log-probs differ by up to {found.max_abs_diff:.2g} nats, "
            f"more than {MAX_ABS_DIFF}: the conversion is not to be used"
        )
    return Parity(
        status="passed",
        tokens=found.tokens,
        max_abs_diff=found.max_abs_diff,
        mean_abs_diff=found.mean_abs_diff,
        seconds=found.seconds,
    )


def _in_child(checkpoint: Path, folder: Path) -> Measured:
    command = [sys.executable, "-m", "apriel_mcore.processes", "apriel_mcore.convert.parity_child"]
    child = subprocess.run(
        [*command, str(checkpoint.absolute()), str(folder.absolute())],
        capture_output=True,
        text=True,
        check=False,
    )
    if child.returncode != 0:
        said = child.stderr.split("\n")
        last = next((line.strip() for line in reversed(said) if line.strip()), "it said nothing")
        raise ProbeError(
            f"the parity check of {checkpoint} and {folder} could not run: it ended with "
            f"{child.returncode}, {last[-500:]}"
        )
    return msgspec.json.decode(child.stdout.splitlines()[-1], type=Measured)


def _available_bytes() -> int:
    """Memory that can be had without swapping (Linux)."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("/proc/meminfo has no MemAvailable")
