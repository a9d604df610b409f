"""The rest of a process stops the feed's loop as little as it can, and garbage is still found."""

import subprocess
import sys

_CYCLES = """
import gc, sys, weakref
from apriel_mcore.rollout.event_loop import make_way

class Tied:
    def __init__(self):
        self.itself = self

full = []
gc.callbacks.append(lambda phase, info: full.append(info["generation"]))
make_way()
full.clear()
waiting = [[] for _ in range(50_000)]
assert not full, "requests that merely wait are looked at"
found = weakref.ref(Tied())
more = [[] for _ in range(100_000)]
assert found() is None, "a cycle is never found"
assert sys.getswitchinterval() < 0.001
"""


def test_waiting_requests_start_no_collection_and_cycles_are_found_all_the_same() -> None:
    done = subprocess.run([sys.executable, "-c", _CYCLES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
