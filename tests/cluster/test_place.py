"""A node finds its place, tells its address, and hears of the others' ends."""

import os
import socket
from pathlib import Path

import msgspec
import pytest

from apriel_mcore.cluster import site as sites
from apriel_mcore.cluster.folders import AttemptFolder, Launch, LaunchFolder, put
from apriel_mcore.cluster.lead import crew, with_addresses
from apriel_mcore.cluster.place import Ended, Place, find, own_address, read_variables
from apriel_mcore.config.load import dump, load
from apriel_mcore.config.schema import RemoteServers, RemoteVerify, StreamPublish
from apriel_mcore.errors import AprielError, InputError, Preempted
from tests.cluster.sites import RECIPES, mini_site

NODES = """\
NodeName=n1 Arch=x86_64 CoresPerSocket=16 NodeAddr=10.0.0.1 NodeHostName=a Version=22.05.8 State=IDLE
NodeName=n2 Arch=x86_64 CoresPerSocket=16 NodeAddr=10.0.0.2 NodeHostName=b Version=22.05.8 State=IDLE
"""


def place_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, node: str, *site: str, seeds: tuple[int, ...] = ()
) -> Place:
    """A launch folder as `apriel launch` and the batch script leave it, seen from a node of four."""
    folder = LaunchFolder(tmp_path / "launches" / "one")
    attempt = AttemptFolder(folder.attempts / "0.0")
    attempt.path.mkdir(parents=True, exist_ok=True)
    launch = Launch(name="one", seeds=list(seeds), continues_changed=False)
    put(folder.launch, msgspec.json.encode(launch))
    put(folder.recipe, dump(load(RECIPES / "quickstart_cluster.toml")).encode())
    put(folder.site, sites.dump(mini_site(*site)).encode())
    put(attempt.hostnames, b"n1\nn2\nn3\nn4\n")
    put(attempt.nodes, NODES.encode())
    monkeypatch.setenv("SLURMD_NODENAME", node)
    return find(folder, attempt, task=len(seeds) - 1 if seeds else 0)


def test_a_node_stands_where_its_name_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    roles = []
    for name in ("n1", "n2", "n3", "n4"):
        place = place_on(tmp_path, monkeypatch, name)
        roles.append((place.node, place.nodes.role(place.node)))
    assert roles == [(0, "trainer"), (1, "trainer"), (2, "rollout"), (3, "rollout")]
    assert place_on(tmp_path, monkeypatch, "n2").run_dir.root == tmp_path / "runs" / "one"


def test_a_task_has_its_seed_and_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = place_on(tmp_path, monkeypatch, "n1", seeds=(7, 9))
    assert (place.config.seed, place.run_dir.root.name) == (9, "one-seed9")


def test_the_address_is_slurms_or_that_of_an_interface(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = place_on(tmp_path, monkeypatch, "n2")
    assert place.announce() == "10.0.0.2"
    assert place.attempt.address(1).read_text() == "10.0.0.2"
    kind = ["network.address.kind=interface"]
    assert own_address(mini_site(*kind, "network.address.name=lo"), place.attempt) == "127.0.0.1"
    with pytest.raises(InputError, match=r"network\.address\.name.*lo"):
        own_address(mini_site(*kind, "network.address.name=ib77"), place.attempt)
    assert "lo" in [name for _, name in socket.if_nameindex()]


def test_the_attempts_recipe_names_every_server_and_the_runs_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = place_on(tmp_path, monkeypatch, "n1", "verifier_nodes=1")
    addresses = [f"10.0.0.{node}" for node in range(1, 6)]
    placed = with_addresses(place, addresses)
    servers, judges = placed.rollout.servers, placed.verify
    assert isinstance(servers, RemoteServers)
    assert servers.urls == ["http://10.0.0.3:21001", "http://10.0.0.4:21002"]
    assert isinstance(judges, RemoteVerify)
    assert judges.urls == ["http://10.0.0.5:21003"]
    assert isinstance(placed.publish, StreamPublish)
    assert placed.publish.host == "10.0.0.1"
    put(tmp_path / "placed.toml", dump(placed).encode())
    assert load(tmp_path / "placed.toml") == placed


def test_ranks_of_every_trainer_node_meet_at_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = [crew(place_on(tmp_path, monkeypatch, name), "10.0.0.1").rendezvous for name in ("n1", "n2")]
    assert [f"--node-rank={node}" in words for node, words in enumerate(flags)] == [True, True]
    for words in flags:
        assert {"--nnodes=2", "--master-addr=10.0.0.1", "--master-port=21000"} <= set(words)


def test_waiting_ends_with_a_failure_a_stop_or_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = place_on(tmp_path, monkeypatch, "n1")
    with pytest.raises(AprielError, match="missing: a thing"):
        place.wait_as_leader("it", timeout_s=0.0, missing=lambda: ["a thing"])
    place.attempt.stop.touch()
    with pytest.raises(Preempted):
        place.wait_as_leader("it", timeout_s=9.0, missing=lambda: ["a thing"])
    other = place_on(tmp_path, monkeypatch, "n3")
    other.report(InputError("rollout.servers.port: in use"))
    with pytest.raises(AprielError, match=r"node 2 \(rollout\): rollout\.servers\.port") as failure:
        place.wait_as_leader("it", timeout_s=9.0, missing=lambda: ["a thing"])
    assert failure.value.exit_code == 2


def test_the_others_end_when_the_leading_node_says_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = place_on(tmp_path, monkeypatch, "n3")
    put(place.attempt.exit_code, b"0")
    with pytest.raises(Ended):
        place.wait_until(place.attempt.orders)


def test_what_has_no_token_listens_on_the_named_interface_alone() -> None:
    named = ["network.address.kind=interface", "network.address.name=ib0"]
    chosen = {"NCCL_SOCKET_IFNAME": "ib0", "GLOO_SOCKET_IFNAME": "ib0"}
    assert read_variables(mini_site(*named)) == chosen
    other = {"NCCL_SOCKET_IFNAME": "ib1"}
    assert read_variables(mini_site(*named, 'variables.NCCL_SOCKET_IFNAME="ib1"')) == chosen | other
    assert read_variables(mini_site()) == {}


def test_secrets_are_read_from_a_closed_file_only(tmp_path: Path) -> None:
    secret = tmp_path / "secrets"
    secret.touch(0o600)
    secret.write_text("# of the project\nWANDB_API_KEY=a=b\n\n")
    site = mini_site(f"secrets={secret}", 'variables={NCCL_DEBUG="WARN"}')
    assert secret.stat().st_mode & 0o777 == 0o600
    assert read_variables(site) == {"NCCL_DEBUG": "WARN", "WANDB_API_KEY": "a=b"}
    secret.chmod(0o640)
    with pytest.raises(InputError, match="chmod 600"):
        read_variables(site)
    secret.unlink()
    with pytest.raises(InputError, match="cannot be read"):
        read_variables(site)


def test_a_file_appears_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    put(tmp_path / "a", b"1")
    put(tmp_path / "a", b"2")
    assert os.listdir(tmp_path) == ["a"]
