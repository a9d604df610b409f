"""Servers, and how answers are sampled from them."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from apriel_mcore.config.schema.fields import Natural, NonNegative, Origin, Positive, PositiveFloat, Section


class LocalServers(Section, frozen=True, kw_only=True, tag_field="kind", tag="local"):
    """vLLM servers that the run starts and watches: on this host, or on rollout nodes of its job."""

    count: Positive = 1
    port: Natural = 0
    """First port; 0: free ports are chosen."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    head_dtype: Literal["float32", "model"] = "float32"
    """Of logits; in bfloat16 their rounding alone moves log-probs by 0.04 (MiniMax-M1, arXiv 2506.13585)."""
    kv_cache_gib: PositiveFloat | Literal["auto"] = 1.0
    """KV cache of each device; auto (GPUs only): what `gpu_memory_utilization` leaves beside the weights."""
    gpu_memory_utilization: Annotated[float, Meta(gt=0, le=1)] = 0.9
    """Share of each GPU's memory that a server takes in all, where `kv_cache_gib` is auto."""
    max_num_seqs: Positive = 64
    max_model_len: Positive = 2048
    tensor: Positive = 1
    """GPUs (CPU: processes) that share one server's weights."""
    start_timeout_s: PositiveFloat = 600.0
    host: str = "127.0.0.1"

    @property
    def num_devices(self) -> int:
        """GPUs of all servers; each counts once."""
        return self.count * self.tensor


class RemoteServers(Section, frozen=True, kw_only=True, tag_field="kind", tag="urls"):
    """vLLM servers that somebody else started."""

    urls: Annotated[list[Origin], Meta(min_length=1)]
    token_file: str = ""
    """Holds the token that the servers started with; empty: the variable APRIEL_SERVER_TOKEN does."""
    max_num_seqs: Positive = 64
    max_model_len: Positive = 2048
    tensor: Positive = 1
    start_timeout_s: PositiveFloat = 600.0


class RolloutSection(Section, frozen=True, kw_only=True):
    """How answers are sampled, and how far generation may run ahead."""

    group_size: Annotated[int, Meta(ge=2)] = 8
    max_output_tokens: Positive
    temperature: PositiveFloat = 1.0
    stop: list[str] = msgspec.field(default_factory=list)
    max_lag: NonNegative | Literal["unbounded"] = 2.0
    """Optimizer steps that outstanding work may be worth; 0: strictly on-policy."""
    max_group_age: NonNegative | Literal["off", "auto"] = "auto"
    """A ready group older than this many versions is dropped; auto: max_lag + 1."""
    group_deadline_s: PositiveFloat = 600.0
    min_group: Annotated[int, Meta(ge=2)] | Literal["half"] = "half"
    """Rollouts that must survive the deadline for the group to count; half: of its size, at least 2."""
    max_groups_in_flight: Positive = 16
    """Groups sent to the pool at once."""
    servers: LocalServers | RemoteServers

    def __post_init__(self) -> None:
        if self.max_lag == 0 and self.max_group_age not in ("auto", 0):
            raise ValueError(
                f"max_group_age = {self.max_group_age} means nothing at max_lag = 0, where no group is older "
                'than the weights: leave it "auto"'
            )
        if self.fewest_survivors > self.group_size:
            raise ValueError(f"min_group = {self.min_group} exceeds group_size = {self.group_size}")

    @property
    def oldest_group(self) -> float | Literal["off"]:
        """Versions after which a ready group is dropped."""
        if self.max_group_age != "auto":
            return self.max_group_age
        return "off" if self.max_lag == "unbounded" else self.max_lag + 1

    @property
    def fewest_survivors(self) -> int:
        """Rollouts of the smallest group that counts."""
        return max(2, -(-self.group_size // 2)) if self.min_group == "half" else self.min_group
