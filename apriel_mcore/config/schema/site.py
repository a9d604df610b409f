"""A SLURM cluster, as a file in `slurm/` describes it; a recipe knows nothing of it."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from apriel_mcore.config.schema.fields import Natural, Positive, Section

Word = Annotated[str, Meta(pattern=r"^[\w.,:%/@+-]*$")]
"""What may stand in a batch directive: no blanks, no quotes. Empty: left to the cluster."""
Path = Annotated[str, Meta(pattern=r"^/[\w./@+-]*$")]
"""Absolute, without blanks."""
Option = Annotated[str, Meta(pattern=r"^--[a-z][a-z-]*(=[\w.,:%/@+&|*\[\]()-]*)?$")]


class LocalTunnel(Section, frozen=True, kw_only=True, tag_field="kind", tag="local"):
    """SLURM's commands run on this machine: a login node."""


class SshTunnel(Section, frozen=True, kw_only=True, tag_field="kind", tag="ssh"):
    """SLURM's commands run on a login node that is reached by ssh."""

    host: str
    user: str
    port: Positive = 22
    identity: str = ""
    """A private key; empty: ssh's own choice, then a password is asked for."""


class BareEnvironment(Section, frozen=True, kw_only=True, tag_field="kind", tag="bare"):
    """An environment on a file system that every node sees."""

    python: Path
    """Its interpreter."""


class ContainerEnvironment(Section, frozen=True, kw_only=True, tag_field="kind", tag="container"):
    """An image that pyxis starts on every node; `root` is mounted where it is."""

    image: Annotated[str, Meta(min_length=1)]
    python: str = "python3"
    mounts: list[str] = msgspec.field(default_factory=list)
    """Further ones, as SOURCE:TARGET."""


class GitCode(Section, frozen=True, kw_only=True, tag_field="kind", tag="git"):
    """A commit of the working copy that `apriel launch` runs in is sent with the launch."""

    ref: Annotated[str, Meta(pattern=r"^[\w./~^-]+$")] = "HEAD"


class InstalledCode(Section, frozen=True, kw_only=True, tag_field="kind", tag="installed"):
    """The environment has apriel_mcore installed, and that one runs."""


class Batch(Section, frozen=True, kw_only=True):
    """What is asked of SLURM."""

    account: Word = ""
    partition: Word = ""
    qos: Word = ""
    time: Annotated[str, Meta(pattern=r"^(\d+-)?\d{1,3}(:\d\d){0,2}$")]
    """As sbatch reads it: MINUTES, HH:MM:SS, D-HH:MM:SS. A run that needs longer is requeued."""
    save_before_s: Annotated[int, Meta(ge=30)] = 300
    """Before the limit, when the run is asked to save and stop (SLURM may be 60 s early). A step, a
    checkpoint and the end of the processes must fit."""
    retries: Natural = 3
    """Failed attempts of a run, as after a rank died, that are followed by another one."""
    mail: Word = ""
    """Address."""
    mail_types: Word = "END,FAIL,REQUEUE"
    exclusive: bool = True
    gpus: Literal["gres", "gpus_per_node", "none"] = "gres"
    """How GPUs are asked for: --gres=gpu:N, --gpus-per-node=N, or not at all."""
    cpus_per_task: Natural = 0
    """0: left to the cluster."""
    mem: Word = ""
    """Of a node; 0 is all."""
    options: list[Option] = msgspec.field(default_factory=list)
    """Further options of sbatch, as --constraint=h100."""
    template: str = "job.sh"
    """Of the batch script, beside the cluster's file."""


class NodeAddress(Section, frozen=True, kw_only=True, tag_field="kind", tag="node_address"):
    """The address that SLURM knows of a node (NodeAddr)."""


class InterfaceAddress(Section, frozen=True, kw_only=True, tag_field="kind", tag="interface"):
    """The IPv4 address of a network interface of the node, as ib0."""

    name: Annotated[str, Meta(min_length=1)]


class Network(Section, frozen=True, kw_only=True):
    """Where the processes of a run meet."""

    address: NodeAddress | InterfaceAddress = NodeAddress()
    first_port: Annotated[int, Meta(ge=1024, le=60000)] = 21000
    """Rendezvous, servers and verifiers take the ports from here on, one each, also where two nodes are
    on one host; the tasks of an array follow each other."""


class Site(Section, frozen=True, kw_only=True):
    """One cluster."""

    root: Path
    """Folder that all nodes and the login node see: runs/, launches/."""
    tunnel: LocalTunnel | SshTunnel
    environment: BareEnvironment | ContainerEnvironment
    code: GitCode | InstalledCode = GitCode()
    batch: Batch
    network: Network = Network()
    verifier_nodes: Natural = 0
    """Nodes that judge; 0: the first trainer node judges."""
    variables: dict[Annotated[str, Meta(pattern=r"^[A-Za-z_]\w*$")], str] = msgspec.field(
        default_factory=dict
    )
    """Environment of every process of the run. No secrets: it lies beside the run. A container must have
    mounted what APRIEL_CACHE names."""
    secrets: str = ""
    """A file on the cluster, readable by its owner alone, with NAME=VALUE lines for the environment; empty:
    none. A container must have it: below `root` or a target of `environment.mounts`, never `~`."""
