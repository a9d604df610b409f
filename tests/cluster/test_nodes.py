"""Every rank, server and judge has one place and one port; what has none is refused by its key."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apriel_mcore.cluster.nodes import NodeMap, describe, node_map
from apriel_mcore.config.load import load
from apriel_mcore.config.schema import Parallel, RunConfig
from apriel_mcore.errors import ConfigError
from tests.cluster.sites import RECIPES, mini_site

CLUSTER_RECIPE = load(RECIPES / "quickstart_cluster.toml")


def sized(*, data: int, per_node: int, count: int, tensor: int) -> RunConfig:
    """The cluster's quickstart with other sizes."""
    config = CLUSTER_RECIPE
    servers = msgspec.structs.replace(config.rollout.servers, count=count, tensor=tensor)
    return msgspec.structs.replace(
        config,
        train=msgspec.structs.replace(config.train, parallel=Parallel(data=data)),
        cluster=msgspec.structs.replace(config.cluster, gpus_per_node=per_node),
        rollout=msgspec.structs.replace(config.rollout, servers=servers),
    )


def ports_of(nodes: NodeMap) -> list[int]:
    ports = [nodes.rendezvous_port]
    ports += [nodes.server_port(server) for server in range(nodes.servers)]
    return ports + [nodes.verifier_port(node) for node in nodes.verifier_nodes]


@given(
    data=st.integers(1, 32),
    per_node=st.sampled_from([1, 2, 4, 8]),
    count=st.integers(1, 40),
    tensor=st.sampled_from([1, 2, 4, 8]),
    verifiers=st.integers(0, 3),
    task=st.integers(0, 5),
)
def test_everything_has_one_place_and_no_port_is_used_twice(
    data: int, per_node: int, count: int, tensor: int, verifiers: int, task: int
) -> None:
    site = msgspec.structs.replace(mini_site(), verifier_nodes=verifiers)
    config = sized(data=data, per_node=per_node, count=count, tensor=tensor)
    if tensor > per_node or data % -(-data // per_node):
        with pytest.raises(ConfigError, match=r"rollout\.servers\.tensor|train\.parallel"):
            node_map(config, site, task=task)
        return
    nodes = node_map(config, site, task=task)
    assert nodes.trainers * nodes.ranks_per_node == data
    rollout = range(nodes.trainers, nodes.trainers + nodes.rollout)
    placed = [server for node in rollout for server in nodes.servers_on(node)]
    assert placed == list(range(count))
    assert all(server in nodes.servers_on(nodes.node_of(server)) for server in placed)
    assert all(0 < len(nodes.servers_on(node)) * tensor <= per_node for node in rollout)
    assert len(set(ports_of(nodes))) == nodes.num_ports == len(ports_of(nodes))
    assert len(describe(nodes)) == nodes.num_nodes


def test_tasks_of_an_array_share_no_port() -> None:
    first, second = (node_map(CLUSTER_RECIPE, mini_site(), task=task) for task in (0, 1))
    assert not set(ports_of(first)) & set(ports_of(second))


def test_the_published_recipe_takes_four_nodes_of_eight() -> None:
    nodes = node_map(load(RECIPES / "apriel_reasoner_15b.toml"), mini_site(), task=0)
    assert (nodes.trainers, nodes.ranks_per_node, nodes.rollout) == (1, 8, 3)
    assert [len(nodes.servers_on(node)) for node in (1, 2, 3)] == [4, 4, 4]


def test_an_arena_keeps_trainer_and_servers_on_one_node() -> None:
    one = load(RECIPES / "quickstart.toml", ["cluster.gpus_per_node=2"])
    nodes = node_map(one, mini_site(), task=0)
    assert (nodes.num_nodes, nodes.rollout) == (1, 0)
    two = load(RECIPES / "quickstart.toml", ["cluster.gpus_per_node=1"])
    with pytest.raises(ConfigError, match=r'publish\.kind.*use "stream"'):
        node_map(two, mini_site(), task=0)


def test_servers_of_somebody_else_cannot_be_launched() -> None:
    overrides = ["rollout.servers.kind=urls", 'rollout.servers.urls=["http://a:1"]']
    with pytest.raises(ConfigError, match=r"rollout\.servers\.kind"):
        node_map(load(RECIPES / "quickstart.toml", overrides), mini_site(), task=0)


def test_ports_end_where_numbers_end() -> None:
    site = mini_site()
    high = msgspec.structs.replace(site.network, first_port=60000)
    with pytest.raises(ConfigError, match=r"network\.first_port"):
        node_map(CLUSTER_RECIPE, msgspec.structs.replace(site, network=high), task=5000)
