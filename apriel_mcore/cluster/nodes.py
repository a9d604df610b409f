"""Which node of a job does what, and on which ports?

    nodes of the job:  trainers (the first leads) | rollout servers | verifiers

One homogeneous job, sliced: every process computes the same map from the recipe and its place in the list.
"""

from typing import Literal

import msgspec

from apriel_mcore.config.schema import ArenaPublish, LocalServers, RunConfig
from apriel_mcore.config.schema.site import Site
from apriel_mcore.errors import ConfigError

Role = Literal["trainer", "rollout", "verifier"]
_HIGHEST_PORT = 65535


class NodeMap(msgspec.Struct, frozen=True, kw_only=True):
    """How many nodes each role has, in this order."""

    trainers: int
    ranks_per_node: int
    rollout: int
    servers: int
    """In all; those of one run on `rollout` nodes, or beside the only trainer."""
    servers_per_node: int
    verifiers: int
    first_port: int

    @property
    def num_nodes(self) -> int:
        """Nodes of the job."""
        return self.trainers + self.rollout + self.verifiers

    @property
    def num_ports(self) -> int:
        """Ports that a run takes, were all its nodes on one host."""
        return 1 + self.servers + self.verifiers

    @property
    def rendezvous_port(self) -> int:
        """Of the trainer's ranks, on the first node."""
        return self.first_port

    def role(self, node: int) -> Role:
        """What a node does."""
        if node < self.trainers:
            return "trainer"
        return "rollout" if node < self.trainers + self.rollout else "verifier"

    def servers_on(self, node: int) -> range:
        """Numbers of the servers on a rollout node."""
        first = (node - self.trainers) * self.servers_per_node
        return range(first, min(first + self.servers_per_node, self.servers))

    def node_of(self, server: int) -> int:
        """The node of a server."""
        return self.trainers + server // self.servers_per_node

    def server_port(self, server: int) -> int:
        """Of a server, by its number in the run."""
        return self.first_port + 1 + server

    @property
    def verifier_nodes(self) -> range:
        """Those that judge."""
        return range(self.trainers + self.rollout, self.num_nodes)

    def verifier_port(self, node: int) -> int:
        """Of the service on a verifier node."""
        return self.first_port + 1 + self.servers + node - self.verifier_nodes.start


def node_map(config: RunConfig, site: Site, *, task: int) -> NodeMap:
    """The map of one task of a job's array (0 where there is none). ConfigError where a recipe has none."""
    servers = config.rollout.servers
    if not isinstance(servers, LocalServers):
        raise ConfigError(
            'rollout.servers.kind: a launched run starts its servers itself; use "local", not "urls"'
        )
    world, per_node = config.train.parallel.world_size, config.cluster.gpus_per_node
    if servers.tensor > per_node:
        raise ConfigError(
            f"rollout.servers.tensor = {servers.tensor} exceeds cluster.gpus_per_node = {per_node}: "
            "a server runs on one node"
        )
    if isinstance(config.publish, ArenaPublish):
        _require_one_node(config, servers)
        trainers, rollout, servers_per_node = 1, 0, servers.count
    else:
        trainers = config.cluster.nodes_of(world)
        servers_per_node = min(per_node // servers.tensor, servers.count)
        rollout = -(-servers.count // servers_per_node)
    if world % trainers:
        raise ConfigError(
            f"train.parallel needs {world} ranks, which cannot be dealt out evenly to {trainers} nodes of "
            f"cluster.gpus_per_node = {per_node}: change train.parallel.data"
        )
    whole = NodeMap(
        trainers=trainers,
        ranks_per_node=world // trainers,
        rollout=rollout,
        servers=servers.count,
        servers_per_node=servers_per_node,
        verifiers=site.verifier_nodes,
        first_port=site.network.first_port,
    )
    return _shifted(whole, task)


def _require_one_node(config: RunConfig, servers: LocalServers) -> None:
    """An arena is the shared memory of one node."""
    devices = config.train.parallel.world_size + servers.num_devices
    if devices > config.cluster.gpus_per_node:
        raise ConfigError(
            f'publish.kind: "arena" is shared memory of one node, and trainer and servers take {devices} '
            f'places where cluster.gpus_per_node = {config.cluster.gpus_per_node}; use "stream"'
        )


def _shifted(nodes: NodeMap, task: int) -> NodeMap:
    """The map with ports of its own for a task."""
    first = nodes.first_port + task * nodes.num_ports
    if first + nodes.num_ports - 1 > _HIGHEST_PORT:
        raise ConfigError(
            f"network.first_port = {nodes.first_port}: task {task} would need ports above {_HIGHEST_PORT}; "
            "lower it"
        )
    return msgspec.structs.replace(nodes, first_port=first)


def describe(nodes: NodeMap) -> list[str]:
    """A line a node: its place, role and processes."""
    lines: list[str] = []
    for node in range(nodes.num_nodes):
        match nodes.role(node):
            case "trainer":
                first = node * nodes.ranks_per_node
                what = f"ranks {_span(range(first, first + nodes.ranks_per_node))}"
                if node == 0:
                    what += f"; leads, rendezvous on port {nodes.rendezvous_port}"
                    what += "" if nodes.rollout else f"; servers {_span(range(nodes.servers))}"
            case "rollout":
                numbers = nodes.servers_on(node)
                ports = range(nodes.server_port(numbers.start), nodes.server_port(numbers.stop))
                what = f"servers {_span(numbers)} on ports {_span(ports)}"
            case "verifier":
                what = f"judges on port {nodes.verifier_port(node)}"
        lines.append(f"node {node:<3} {nodes.role(node):<8} {what}")
    return lines


def _span(numbers: range) -> str:
    return f"{numbers.start}" if len(numbers) == 1 else f"{numbers.start}-{numbers.stop - 1}"
