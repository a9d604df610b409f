"""The first trainer node: gathers the others, writes down where they are, trains, and says how it ended."""

import time
import urllib.error
import urllib.request

import msgspec

from apriel_mcore import launcher, preflight, rundir, secret
from apriel_mcore.cluster.folders import Orders, put
from apriel_mcore.cluster.place import Place
from apriel_mcore.config.load import dump
from apriel_mcore.config.schema import (
    ArenaPublish,
    LocalServers,
    RemoteServers,
    RemoteVerify,
    RunConfig,
    StreamPublish,
)
from apriel_mcore.launcher import Crew
from apriel_mcore.rollout.server_spec import SPARE_SEQS
from apriel_mcore.views import report, summary

_MUSTER_S = 600.0
"""Nodes of a job start together; images may have to be unpacked."""
_JUDGES_S = 600.0
_LOOK_S = 1.0


def lead(place: Place) -> None:
    """The whole run, or what is left of it. Raises as launcher.lead."""
    addresses = _muster(place)
    run_dir, config = place.run_dir, place.config
    placed = with_addresses(place, addresses)
    if not place.launch.continues_changed:
        rundir.check_same_recipe(run_dir, config)
    preflight.require_kernels(config)
    secret.write(place.attempt.token, secret.new())
    preflight.check(placed, run_dir, tell=print)
    with rundir.held(run_dir):
        rundir.prepare(run_dir, config)
        put(place.attempt.recipe, dump(placed).encode())
        put(place.attempt.orders, msgspec.json.encode(Orders(attempt=run_dir.attempts() + 1)))
        _wait_for_judges(place, placed)
        launcher.lead(placed, run_dir, crew=crew(place, addresses[0]), look=_Lookout(place))
        report.write(run_dir.root)
        summary.show(run_dir)


def crew(place: Place, first_address: str) -> Crew:
    """The ranks of this trainer node."""
    nodes, is_first = place.nodes, place.node == 0
    return Crew(
        num_ranks=nodes.ranks_per_node,
        rendezvous=(
            f"--nnodes={nodes.trainers}",
            f"--node-rank={place.node}",
            "--rdzv-backend=static",
            f"--master-addr={first_address}",
            f"--master-port={nodes.rendezvous_port}",
        ),
        recipe=place.attempt.recipe,
        agent="launcher" if is_first else f"launcher-node{place.node}",
    )


def with_addresses(place: Place, addresses: list[str]) -> RunConfig:
    """The recipe with what is known only now: where servers, judges and ranks meet."""
    config, nodes = place.config, place.nodes
    if nodes.verifiers:
        urls = [f"http://{addresses[node]}:{nodes.verifier_port(node)}" for node in nodes.verifier_nodes]
        judges = RemoteVerify(urls=urls, token_file=str(place.attempt.token))
        config = msgspec.structs.replace(config, verify=judges)
    if isinstance(config.publish, ArenaPublish):
        return config
    local = config.rollout.servers
    assert isinstance(local, LocalServers), "node_map refuses others"
    servers = RemoteServers(
        urls=[
            f"http://{addresses[nodes.node_of(server)]}:{nodes.server_port(server)}"
            for server in range(nodes.servers)
        ],
        token_file=str(place.attempt.token),
        max_num_seqs=local.max_num_seqs + SPARE_SEQS,
        max_model_len=local.max_model_len,
        tensor=local.tensor,
        start_timeout_s=local.start_timeout_s,
    )
    if isinstance(config.publish, StreamPublish):
        met = msgspec.structs.replace(config.publish, host=addresses[0])
        config = msgspec.structs.replace(config, publish=met)
    rollout = msgspec.structs.replace(config.rollout, servers=servers)
    return msgspec.structs.replace(config, rollout=rollout)


def _muster(place: Place) -> list[str]:
    """The addresses of all nodes, once all are up."""
    paths = [place.attempt.address(node) for node in range(place.nodes.num_nodes)]

    def missing() -> list[str]:
        return [f"node {node}" for node, path in enumerate(paths) if not path.exists()]

    place.wait_as_leader("all nodes", timeout_s=_MUSTER_S, missing=missing)
    return [path.read_text(encoding="utf-8") for path in paths]


def _wait_for_judges(place: Place, placed: RunConfig) -> None:
    if not isinstance(placed.verify, RemoteVerify):
        return
    urls, token = placed.verify.urls, secret.read(place.attempt.token, secret.SERVER_VARIABLE)

    def missing() -> list[str]:
        return [url for url in urls if not answers(url, token)]

    place.wait_as_leader("the judges", timeout_s=_JUDGES_S, missing=missing)


def answers(url: str, token: str) -> bool:
    request = urllib.request.Request(f"{url}/health", headers={"Authorization": secret.header(token)})
    try:
        with urllib.request.urlopen(request, timeout=5.0):
            return True
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return False


class _Lookout:
    """Passes a request to stop on to the ranks, and ends with a node that failed. Not more often than needed:
    the file system is everybody's."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._next = 0.0

    def __call__(self) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _LOOK_S
        if self._place.attempt.stop.exists():
            self._place.run_dir.stop_request.touch()
        self._place.require_health()
