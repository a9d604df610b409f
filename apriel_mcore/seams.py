"""Where the story meets the engines: the protocols that loop.py and the feed are written against.

Real ones are chosen in build/; fakes.py holds the same for unit tests.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import msgspec

from apriel_mcore.config.schema import RunConfig
from apriel_mcore.types import Batch, Finish, Group, Problem, StepStats, Verdict


class Completion(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """What a server returns for one sampled answer (see types.Rollout for the fields)."""

    tokens_T: tuple[int, ...]
    logprobs_T: tuple[float, ...]
    text: str
    finish: Finish
    version_first: int
    version_last: int
    seconds: float
    server: str


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """How one answer is sampled."""

    max_tokens: int
    temperature: float
    top_p: float = 1.0
    stop: tuple[str, ...] = ()


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """The weights of a version, as the trainer sent them or as one tensor rank of a server read them."""

    num_tensors: int
    num_bytes: int
    """Of all tensors' elements that were sent or read, without headers."""
    digest: str
    """Of the bytes (bridge/receipt.py)."""
    quantised: tuple[str, ...] = ()
    """Weights in FP8, in short (bridge/scales.py): as sent, or as the server's model computes with them."""


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """A version as servers are told of it: which methods of their workers fetch and take it."""

    version: int
    take: str
    """Swaps it in; also what a server that comes later is asked for, and may refuse."""
    arguments: dict[str, str]
    receive: str = ""
    """Begins to receive it while requests go on; empty where there is nothing to receive."""
    arrived: str = ""
    """Asks whether all of it is there, or nothing more will come."""
    members: tuple[str, ...] = ()
    """The lives of the servers that receive it, as the pool named them; others never see it arrive."""
    sent_R: tuple[Sent, ...] = ()
    """What each tensor rank of a server must read, or one entry for all; empty: as the first server did."""


class Ack(msgspec.Struct, frozen=True, kw_only=True):
    """A server's word that it now serves a version."""

    server: str
    version: int
    read_R: tuple[Sent, ...]
    """What each of its tensor ranks read."""
    seconds: float


def arena_offer(path: str, version: int, *, sent_R: tuple[Sent, ...] = ()) -> Offer:
    """A safetensors file that stays as it is until the next version is published."""
    return Offer(version=version, take="take_weights", arguments={"path": path}, sent_R=sent_R)


class Pool(Protocol):
    """Many rollout servers as one. All methods run on the feed's event loop."""

    async def generate(self, prompt_T: Sequence[int], sampling: Sampling) -> Completion:
        """One sampled answer. Retries on another server when one dies; PoolError when none is left."""
        ...

    async def score(self, tokens_T: Sequence[int]) -> list[list[float]]:
        """Per healthy server: log-prob of each token after the first, given those before it."""
        ...

    async def logprobs(self, tokens_T: Sequence[int]) -> list[float]:
        """Log-prob of each token after the first by one server, asked again elsewhere as `generate` is."""
        ...

    async def update_weights(self, offer: Offer) -> list[Ack]:
        """Put a version's weights on every server; a server that fails leaves the pool."""
        ...

    @property
    def version(self) -> int:
        """Version that newly submitted requests are answered with; -1 before the first update."""
        ...


class Judge(Protocol):
    """The verifiers behind one door."""

    async def grade(self, problem: Problem, text: str) -> Verdict:
        """The verdict on one answer; VerifierError when the judge broke (never a wrong answer)."""
        ...

    def metrics(self) -> dict[str, float]:
        """Counts, latencies and the queue, for the step event; from any thread."""
        ...


class Learner(Protocol):
    """The trainer; every rank holds one and calls it in step with the others."""

    @property
    def step(self) -> int:
        """Optimizer steps taken: the version of the current weights."""
        ...

    @property
    def num_data_ranks(self) -> int:
        """Data-parallel size that batches are packed for."""
        ...

    def train_step(self, batch: Batch) -> StepStats:
        """One optimizer step; the returned numbers are equal on all ranks."""
        ...

    def logprobs(self, tokens_T: Sequence[int]) -> list[float]:
        """Log-prob of each token after the first under the current weights, equal on all ranks."""
        ...


class Publisher(Protocol):
    """Moves the learner's weights into the pool."""

    def publish(self, version: int) -> float:
        """Blocks until every server answers with `version` and the probe agrees; seconds it took."""
        ...


class Taken(NamedTuple):
    """What one optimizer step is made of."""

    groups: list[Group]
    recipe: RunConfig
    """Of the stage that the groups belong to; the run's own where it has no stages."""


class Feed(Protocol):
    """Finished groups with a learning signal, in the mixture's proportions; the same on every rank."""

    def take(self) -> Taken:
        """The groups of the next optimizer step and their recipe; waits for them."""
        ...

    def settle(self, version: int) -> None:
        """The pool serves `version`: free the places of the groups trained for it, and generate on."""
        ...
