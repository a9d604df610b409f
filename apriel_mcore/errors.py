"""Every error of ours, and what the command line makes of it.

AprielError                      exit 1
|-- InputError                   exit 2   the user's input is wrong: file, key, value, remedy
|   `-- ConfigError                       a recipe or an override
|-- VerifierError                exit 1   a judge broke (counted; never a wrong answer)
|   |-- Starved                           the host was too busy to tell; asked again
|   `-- NoOpinion                         a model judge did not decide: the whole group is asked again
|-- PoolError                    exit 1   no rollout server is left, or one breaks its contract
|-- BridgeError                  exit 1   weights did not arrive as they were sent
|-- ProbeError                   exit 1   a check of weights could not run; nothing is known against them
|-- TrainingError                exit 1   the optimizer step is not to be trusted
|-- CheckpointError              exit 1   the run's state did not reach the disk; older ones are intact
`-- Preempted                    exit 75  stopped on request, after a checkpoint: run me again
"""

import difflib
from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a message that refuses a name: the nearest of those that there are, else all of them."""
    names = list(known)
    near = difflib.get_close_matches(word, names, n=1)
    return f"did you mean `{near[0]}`?" if near else f"known: {', '.join(names)}"


class AprielError(Exception):
    """Root of the tree; `exit_code` is what the process ends with."""

    exit_code = 1


class InputError(AprielError):
    """What the user gave cannot be used. The message names where, what was found, and the remedy."""

    exit_code = 2


class ConfigError(InputError):
    """A recipe or an override is wrong: the message starts with the file and the key path."""


class VerifierError(AprielError):
    """A judge crashed, hung or lost its sandbox: its verdict does not exist."""


class Starved(VerifierError):
    """The host did not give a solution the time it was owed: nobody knows what it would have done."""


class NoOpinion(VerifierError):
    """A verdict is missing for a reason that depends on the answer: the rest of its group would be a biased
    sample, so the group goes with it."""


class PoolError(AprielError):
    """The rollout pool cannot serve: no healthy server, or one that violates the protocol."""


class BridgeError(AprielError):
    """A weight version did not arrive as it was sent."""


class ProbeError(AprielError):
    """A check of weights could not run: it says nothing about them."""


class TrainingError(AprielError):
    """A loss, gradient or log-prob gap that makes the step worthless."""


class CheckpointError(AprielError):
    """A checkpoint could not be written, or is not on disk as it was written."""


class Preempted(AprielError):
    """Stopped on request after saving a checkpoint."""

    exit_code = 75
