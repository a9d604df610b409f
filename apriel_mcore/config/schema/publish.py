"""How a version of the weights reaches the servers."""

from typing import Annotated, Literal

from msgspec import Meta

from apriel_mcore.config.schema.fields import Natural, Positive, PositiveFloat, Section

Weights = Literal["as_trained", "fp8_block", "fp8_tensor"]
"""What servers compute with: the trainer's precision, or FP8 (e4m3) for the weights of attention and MLP,
with a scale for every 128 x 128 block or for every projection."""


class ArenaPublish(Section, frozen=True, kw_only=True, tag_field="kind", tag="arena"):
    """Trainer ranks write HF tensors straight into shared memory that local servers map."""

    directory: str = "/dev/shm"
    weights: Weights = "as_trained"
    probe_bound: PositiveFloat | Literal["auto"] = "auto"
    """Mean |log-prob difference| of the probe text, trainer against server, that stops the run; auto: 0.06,
    and 0.2 where weights are quantised (docs/decisions/008-fp8-weights.md)."""
    running_requests: Literal["keep_kv", "recompute_kv"] = "keep_kv"
    server_deadline_s: PositiveFloat = 120.0
    """A server that takes longer over a version leaves the pool until it has it; the others go on."""


class StreamPublish(Section, frozen=True, kw_only=True, tag_field="kind", tag="stream"):
    """Trainer ranks send each server rank the slices that it keeps, over NCCL between GPUs and gloo between
    CPUs; servers may be on other hosts."""

    host: str = "127.0.0.1"
    """Address of the first trainer rank at which servers and the other ranks meet it."""
    port: Natural = 0
    """0: a free port is chosen."""
    message_mib: Positive = 64
    """Size of one message; a rank holds two."""
    timeout_s: Positive = 120
    """How long a rank waits for another one."""
    copies: str = "/dev/shm"
    """In-memory folder on a server's host for the slices that it received last, twice."""
    weights: Weights = "as_trained"
    probe_bound: PositiveFloat | Literal["auto"] = "auto"
    running_requests: Literal["keep_kv", "recompute_kv"] = "keep_kv"
    server_deadline_s: PositiveFloat = 120.0
    """As above; it begins when the trainer has sent everything."""


class FilesPublish(Section, frozen=True, kw_only=True, tag_field="kind", tag="files"):
    """Each version is a folder of safetensors files that servers read, for pools on other sites."""

    folder: Annotated[str, Meta(pattern="^/")]
    """Absolute, on a file system that trainer and servers see under this path; holds a version, two while
    one is handed over."""
    arrival_timeout_s: Positive = 300
    """How long a server waits until it sees a version: file systems between sites lag behind."""
    weights: Weights = "as_trained"
    probe_bound: PositiveFloat | Literal["auto"] = "auto"
    running_requests: Literal["keep_kv", "recompute_kv"] = "keep_kv"
    server_deadline_s: PositiveFloat = 120.0
    """How long a server may take to read a version that it sees; it leaves the pool until it has it."""


Publish = ArenaPublish | FilesPublish | StreamPublish
