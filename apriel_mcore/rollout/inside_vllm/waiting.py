"""How do the processes of a server wait for each other where they share cores with a trainer?

vLLM's reader of a message looks again and again for a second after the last one, which on a GPU host costs
nothing that anyone misses. On a laptop it takes a fifth of a core from the trainer and the judges.
"""

import os
from functools import partialmethod

from apriel_mcore.rollout.server_spec import SLEEPING_VARIABLE


def sleep_between_messages() -> None:
    """A plugin of vLLM's (`vllm.general_plugins`), called by each of its processes at its start.

    Changes nothing but in the servers that we start on CPUs. TypeError, at the server's start, where vLLM's
    reader no longer takes the time.
    """
    if os.environ.get(SLEEPING_VARIABLE) != "1":
        return
    from vllm.distributed.device_communicators.shm_broadcast import SpinCondition

    SpinCondition.__init__ = partialmethod(SpinCondition.__init__, busy_loop_s=0.0)  # pyright: ignore[reportAttributeAccessIssue]
