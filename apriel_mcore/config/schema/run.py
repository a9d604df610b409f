"""A whole run, and the rules across its sections."""

from typing import Annotated, Literal

from msgspec import Meta

from apriel_mcore.config.schema.data import Data, Domain, Sampler
from apriel_mcore.config.schema.fields import Natural, NonNegative, Positive, PositiveFloat, Section
from apriel_mcore.config.schema.model import FolderModel, WheelModel
from apriel_mcore.config.schema.objective import Advantage, Loss, NoLengthPenalty, Reward
from apriel_mcore.config.schema.publish import ArenaPublish, StreamPublish
from apriel_mcore.config.schema.rollout import LocalServers, RolloutSection
from apriel_mcore.config.schema.train import Checkpoint, Cluster, Train


class Eval(Section, frozen=True, kw_only=True):
    """Held-out evaluation through the same pool and judges, unshaped reward."""

    every: Natural = 50
    """Steps between evaluations; 0: only before and after."""
    problems_per_domain: Positive = 64
    samples: Positive = 1
    temperature: NonNegative = 0.6
    top_p: Annotated[float, Meta(gt=0, le=1)] = 0.95


class Verify(Section, frozen=True, kw_only=True):
    """The judges' processes and limits."""

    workers: Positive = 2
    deadline_s: PositiveFloat = 10.0
    sandbox: Literal["bwrap", "rlimit"] = "bwrap"
    """How model-written code runs; `rlimit` is weaker and must be asked for by name."""
    code_cpu_s: PositiveFloat = 3.0
    code_memory_mib: Positive = 512


class Track(Section, frozen=True, kw_only=True):
    """Writers beside events.jsonl, which is always written."""

    wandb: Literal["off", "offline", "online"] = "off"
    project: str = "apriel"


class RunConfig(Section, frozen=True, kw_only=True):
    """A whole run."""

    name: str
    """Where the recipe names none: its file's stem."""
    seed: Natural = 0
    model: WheelModel | FolderModel
    domains: dict[str, Domain]
    data: Data = Data()
    sampler: Sampler = Sampler()
    rollout: RolloutSection
    reward: Reward
    advantage: Advantage = Advantage()
    loss: Loss = Loss()
    train: Train
    cluster: Cluster = Cluster()
    publish: ArenaPublish | StreamPublish = ArenaPublish()
    checkpoint: Checkpoint = Checkpoint()
    eval: Eval = Eval()
    verify: Verify = Verify()
    track: Track = Track()

    def __post_init__(self) -> None:
        self._check_mixture()
        self._check_lengths()
        self._check_devices()

    def _check_mixture(self) -> None:
        total = sum(domain.ratio for domain in self.domains.values())
        if abs(total - 1.0) > 1e-6:
            shares = ", ".join(f"{name} {domain.ratio:g}" for name, domain in self.domains.items())
            raise ValueError(
                f"domains.*.ratio must sum to 1, found {total:g} ({shares}); change them together"
            )

    def _check_lengths(self) -> None:
        budget = self.rollout.max_output_tokens
        for name, domain in self.domains.items():
            if domain.max_output_tokens > budget:
                raise ValueError(
                    f"domains.{name}.max_output_tokens = {domain.max_output_tokens} exceeds "
                    f"rollout.max_output_tokens = {budget}"
                )
        if not isinstance(self.reward.length, NoLengthPenalty):
            for name in self.domains:
                if self.buffer_of(name) >= self.budget_of(name):
                    raise ValueError(
                        f"the length penalty's buffer must be below the output budget: domain {name} has "
                        f"buffer {self.buffer_of(name)} (domains.{name}.length_buffer or "
                        f"reward.length.buffer) and budget {self.budget_of(name)}"
                    )
        if budget >= self.train.seq_len:
            raise ValueError(
                f"rollout.max_output_tokens = {budget} leaves no room for a prompt in train.seq_len = "
                f"{self.train.seq_len}"
            )
        if budget >= self.rollout.servers.max_model_len:
            raise ValueError(
                f"rollout.max_output_tokens = {budget} leaves no room for a prompt in "
                f"rollout.servers.max_model_len = {self.rollout.servers.max_model_len}"
            )

    def _check_devices(self) -> None:
        servers = self.rollout.servers
        if self.train.device == "cpu":
            if isinstance(servers, LocalServers) and servers.kv_cache_gib == "auto":
                raise ValueError(
                    'rollout.servers.kv_cache_gib = "auto" needs train.device = "cuda": '
                    "a CPU server has no memory of its own; give a number of GiB"
                )
            return
        per_node = self.cluster.gpus_per_node
        groups = {"train.parallel.tensor": self.train.parallel.tensor}
        if isinstance(servers, LocalServers):
            groups["rollout.servers.tensor"] = servers.tensor
        for key, size in groups.items():
            if per_node % size:
                raise ValueError(
                    f"{key} = {size} does not divide cluster.gpus_per_node = {per_node}: "
                    "tensor ranks talk in every layer and must share a node"
                )
        world = self.train.parallel.world_size
        if world > per_node and world % per_node:
            raise ValueError(
                f"train.parallel needs {world} GPUs, which fill no whole number of nodes of "
                f"cluster.gpus_per_node = {per_node}: change train.parallel.data"
            )

    @property
    def ratios(self) -> dict[str, float]:
        """Target shares in recipe order."""
        return {name: domain.ratio for name, domain in self.domains.items()}

    def budget_of(self, domain: str) -> int:
        """Output-token budget L of a domain."""
        return self.domains[domain].max_output_tokens or self.rollout.max_output_tokens

    def buffer_of(self, domain: str) -> int:
        """Buffer B of a domain's length penalty; 0 where there is none."""
        if isinstance(self.reward.length, NoLengthPenalty):
            return 0
        return self.domains[domain].length_buffer or self.reward.length.buffer
