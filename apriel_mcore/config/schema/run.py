"""A whole run, and the rules across its sections."""

import re
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from apriel_mcore.config.schema.data import Data, Domain, KeepNearDuplicates, Sampler
from apriel_mcore.config.schema.fields import Natural, NonNegative, Positive, Section
from apriel_mcore.config.schema.fp8 import keeps_params
from apriel_mcore.config.schema.mixture import ConstantMixture, MixtureTargets, StagedMixture
from apriel_mcore.config.schema.model import FolderModel, WheelModel
from apriel_mcore.config.schema.model_judge import EndpointJudge, NoModelJudge
from apriel_mcore.config.schema.objective import (
    Advantage,
    DifficultyAwareLengthPenalty,
    LengthPenalty,
    Loss,
    NoLengthPenalty,
    Reward,
)
from apriel_mcore.config.schema.publish import ArenaPublish, Publish, StreamPublish
from apriel_mcore.config.schema.rollout import LocalServers, RolloutSection
from apriel_mcore.config.schema.train import Checkpoint, Cluster, Train
from apriel_mcore.config.schema.verify import RemoteVerify, Verify
from apriel_mcore.config.schema.watch import Watch
from apriel_mcore.config.tree import Tree, leaves, merge


class Eval(Section, frozen=True, kw_only=True):
    """Held-out evaluation through the same pool and judges, unshaped reward."""

    every: Natural = 50
    """Steps between evaluations; 0: only before and after."""
    problems_per_domain: Positive = 64
    samples: Positive = 1
    temperature: NonNegative = 0.6
    top_p: Annotated[float, Meta(gt=0, le=1)] = 0.95


class Track(Section, frozen=True, kw_only=True):
    """Writers beside events.jsonl, which is always written."""

    wandb: Literal["off", "offline", "online"] = "off"
    project: str = "apriel"


STAGE_KEYS = re.compile(
    r"domains\.\w+\.(ratio|max_output_tokens|length_\w+)"
    r"|rollout\.(max_output_tokens|stop|group_deadline_s|min_group|temperature|max_lag|max_group_age)"
    r"|(reward|advantage)\..+"
)
"""What a stage of a staged mixture may change; everything else is fixed when the engines start."""


class RunConfig(Section, frozen=True, kw_only=True):
    """A whole run."""

    name: str
    """Where the recipe names none: its file's stem."""
    seed: Natural = 0
    model: WheelModel | FolderModel
    domains: dict[str, Domain]
    mixture: MixtureTargets = ConstantMixture()
    data: Data = Data()
    sampler: Sampler = Sampler()
    rollout: RolloutSection
    reward: Reward
    advantage: Advantage = Advantage()
    loss: Loss = Loss()
    train: Train
    cluster: Cluster = Cluster()
    publish: Publish = ArenaPublish()
    checkpoint: Checkpoint = Checkpoint()
    eval: Eval = Eval()
    verify: Verify | RemoteVerify = Verify()
    model_judge: NoModelJudge | EndpointJudge = NoModelJudge()
    """Who is asked where the rules of `verify` do not accept an answer."""
    track: Track = Track()
    watch: Watch = Watch()

    def __post_init__(self) -> None:
        self._check_mixture()
        self._check_lengths()
        self._check_devices()
        self._check_fp8()
        self._check_model_judge()
        self._check_near_duplicates()
        self.stages()

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
        for name in self.domains:
            self._check_penalty(name)
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

    def _check_penalty(self, name: str) -> None:
        length = self.length_of(name)
        if not isinstance(length, NoLengthPenalty) and length.buffer >= self.budget_of(name):
            raise ValueError(
                f"the length penalty's buffer must be below the output budget: domain {name} has "
                f"buffer {length.buffer} (domains.{name}.length_buffer or reward.length.buffer) "
                f"and budget {self.budget_of(name)}"
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
        if keeps_params(self.train.fp8) and not isinstance(self.publish, StreamPublish):
            raise ValueError(
                'train.fp8.params = true needs publish.kind = "stream": writing an arena or files would keep '
                "a bfloat16 copy of the weights on every GPU"
            )
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

    def stages(self) -> tuple["RunConfig", ...]:
        """The recipe as each stage of its mixture has it; the recipe alone where there are none.

        ValueError for a stage that changes what cannot change, or into what cannot be.
        """
        if not isinstance(self.mixture, StagedMixture):
            return (self,)
        return tuple(self._at(name, stage.settings) for name, stage in self.mixture.stages.items())

    def _at(self, stage: str, settings: Tree) -> "RunConfig":
        key = f"mixture.stages.{stage}.settings"
        if fixed := [leaf for leaf in leaves(settings) if not STAGE_KEYS.fullmatch(leaf)]:
            raise ValueError(f"{key}.{fixed[0]}: a stage cannot change it; set it for the whole run")
        whole = msgspec.to_builtins(self) | {"mixture": {"kind": "constant"}}
        try:
            return msgspec.convert(merge(whole, settings), RunConfig)
        except msgspec.ValidationError as error:
            complaint, _, path = str(error).partition(" - at `$")
            raise ValueError(f"{key}{path.rstrip('`')}: {complaint}") from None

    def _check_fp8(self) -> None:
        weights, servers = self.publish.weights, self.rollout.servers
        if weights == "as_trained":
            return
        if isinstance(servers, LocalServers) and servers.dtype != "bfloat16":
            raise ValueError(
                f'publish.weights = "{weights}": a server computes beside FP8 weights in bfloat16, not '
                f'rollout.servers.dtype = "{servers.dtype}"'
            )
        if weights == "fp8_tensor" and self.train.device == "cpu":
            raise ValueError(
                'publish.weights = "fp8_tensor": vLLM\'s CPU build cannot fuse projections that have a scale '
                'each; use "fp8_block", or train.device = "cuda"'
            )

    def _check_model_judge(self) -> None:
        if not isinstance(self.model_judge, EndpointJudge):
            return
        if unknown := [name for name in self.model_judge.domains if name not in self.domains]:
            raise ValueError(
                f"model_judge.domains names {unknown[0]!r}; the recipe has {', '.join(self.domains)}"
            )

    def _check_near_duplicates(self) -> None:
        near = self.data.near_duplicates
        if isinstance(near, KeepNearDuplicates):
            return
        if unknown := [name for name in near.domains if name not in self.domains]:
            raise ValueError(
                f"data.near_duplicates.domains names {unknown[0]!r}; the recipe has {', '.join(self.domains)}"
            )

    @property
    def ratios(self) -> dict[str, float]:
        """Target shares in recipe order."""
        return {name: domain.ratio for name, domain in self.domains.items()}

    def budget_of(self, domain: str) -> int:
        """Output-token budget L of a domain."""
        return self.domains[domain].max_output_tokens or self.rollout.max_output_tokens

    def length_of(self, domain: str) -> LengthPenalty:
        """The length penalty of a domain: the reward section's, with the domain's own values in it.

        Values that the kind of penalty does not have are left out: an ablation changes the kind alone.
        """
        length, section = self.reward.length, self.domains[domain]
        own = {
            "buffer": section.length_buffer,
            "gamma": section.length_gamma,
            "failure_scale": section.length_failure_scale,
        }
        known = msgspec.structs.asdict(length)
        return msgspec.structs.replace(
            length, **{key: value for key, value in own.items() if key in known and value != "inherit"}
        )

    def remarks(self) -> list[str]:
        """What is allowed but rarely meant."""
        remarks: list[str] = []
        if self.advantage.mask_truncated and isinstance(self.reward.length, DifficultyAwareLengthPenalty):
            remarks.append(
                "advantage.mask_truncated = true takes the gradient from the rollouts that "
                'reward.length.kind = "difficulty_aware" charges in full'
            )
        return remarks
