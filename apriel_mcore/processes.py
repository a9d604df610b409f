"""What every process of ours is given by the one that starts it: an end, and an environment.

python -m apriel_mcore.processes MODULE [ARG ...]    runs MODULE, killed when its parent dies

A child that outlives its parent is a leak.
"""

import ctypes
import os
import runpy
import signal
import sys
from importlib.util import find_spec

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Have the kernel SIGKILL this process when its parent ends, however that happens (Linux)."""
    parent = os.getppid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:  # it died before the call took effect
        os.kill(os.getpid(), signal.SIGKILL)


def require(package: str) -> None:
    """ModuleNotFoundError unless a child process in this environment can import it."""
    if find_spec(package) is None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)


def streaming_copies() -> dict[str, str]:
    """Environment in which glibc's memmove writes blocks of 32 KiB and more around the cache.

    Left to itself it does so above three quarters of the last-level cache, which on servers is more than any
    one weight has: then every copy of weights first reads the pages that it overwrites.
    """
    settings = ["glibc.cpu.x86_non_temporal_threshold=32768", os.environ.get("GLIBC_TUNABLES", "")]
    return {"GLIBC_TUNABLES": ":".join(filter(None, settings))}


def main() -> None:
    """Run a module as `__main__` in a process that ends with its parent."""
    die_with_parent()
    module = sys.argv[1]
    sys.argv = sys.argv[1:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
