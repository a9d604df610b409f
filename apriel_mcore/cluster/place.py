"""Where does this process stand in the job, and how does it wait for the others?"""

import os
import re
import socket
import struct
import sys
import time
from collections.abc import Callable
from fcntl import ioctl
from pathlib import Path

import msgspec

from apriel_mcore.cluster import site as sites
from apriel_mcore.cluster.folders import AttemptFolder, Failure, Launch, LaunchFolder, put
from apriel_mcore.cluster.nodes import NodeMap, node_map
from apriel_mcore.config.load import load
from apriel_mcore.config.schema import RunConfig
from apriel_mcore.config.schema.site import InterfaceAddress, NodeAddress, Site
from apriel_mcore.errors import AprielError, InputError, Preempted
from apriel_mcore.rundir import RunDir

POLL_S = 0.5
_TELL_EVERY_S = 30.0
_SIOCGIFADDR = 0x8915


class Ended(Exception):
    """The run has ended: there is nothing left to do for a node that is not the leading one."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """One node of one attempt."""

    node: int
    task: int
    nodes: NodeMap
    config: RunConfig
    """The recipe of the task, its seed included; servers are still those that the run starts."""
    site: Site
    launch: Launch
    folder: LaunchFolder
    attempt: AttemptFolder

    @property
    def run_dir(self) -> RunDir:
        """Of the task's run."""
        return self.folder.run_dir(self.launch, self.task)

    def announce(self) -> str:
        """Tell the others where this node is; its address."""
        address = own_address(self.site, self.attempt)
        put(self.attempt.address(self.node), address.encode())
        return address

    def report(self, error: AprielError) -> None:
        """Tell the leading node why this one cannot go on."""
        failure = Failure(node=self.node, code=error.exit_code, message=str(error))
        put(self.attempt.failure(self.node), msgspec.json.encode(failure))

    def require_health(self) -> None:
        """AprielError when a node of the attempt failed."""
        for path in sorted(self.attempt.path.glob("node-*.failure.json")):
            failure = msgspec.json.decode(path.read_bytes(), type=Failure)
            role = self.nodes.role(failure.node)
            error = AprielError(f"node {failure.node} ({role}): {failure.message}")
            error.exit_code = failure.code
            raise error

    def wait_as_leader(self, what: str, *, timeout_s: float, missing: Callable[[], list[str]]) -> None:
        """Until nothing is missing, telling what still is.

        AprielError when a node failed or time is up, Preempted when the run is asked to stop.
        """
        deadline, told = time.monotonic() + timeout_s, 0.0
        while absent := missing():
            self.require_health()
            if self.attempt.stop.exists():
                raise Preempted(f"stopped on request while waiting for {what}")
            if time.monotonic() > deadline:
                raise AprielError(f"waited {timeout_s:.0f} s for {what}; missing: {', '.join(absent)}")
            if time.monotonic() - told > _TELL_EVERY_S:
                print(f"waiting for {what}: {', '.join(absent)}", flush=True)
                told = time.monotonic()
            time.sleep(POLL_S)

    def wait_until(self, path: Path) -> None:
        """Until a file of the attempt is there; Ended when the run ended before."""
        while not path.exists():
            self.require_going_on()
            time.sleep(POLL_S)

    def require_going_on(self) -> None:
        """Raises Ended when the leading node has said how the run ended."""
        if self.attempt.exit_code.exists():
            raise Ended


def find(folder: LaunchFolder, attempt: AttemptFolder, *, task: int) -> Place:
    """The place of this process: its node's name among those of the job."""
    launch = folder.read_launch()
    site = sites.load(folder.site)
    seed = [f"seed={launch.seeds[task]}"] if launch.seeds else []
    config = load(folder.recipe, seed)
    names = attempt.hostnames.read_text(encoding="utf-8").split()
    return Place(
        node=names.index(os.environ["SLURMD_NODENAME"]),
        task=task,
        nodes=node_map(config, site, task=task),
        config=config,
        site=site,
        launch=launch,
        folder=folder,
        attempt=attempt,
    )


def own_address(site: Site, attempt: AttemptFolder) -> str:
    """Where the other nodes reach this one; InputError when the cluster's file names no address of it."""
    match site.network.address:
        case NodeAddress():
            return _node_address(attempt.nodes.read_text(encoding="utf-8"), os.environ["SLURMD_NODENAME"])
        case InterfaceAddress(name=name):
            return _interface_address(name)


def _node_address(listing: str, name: str) -> str:
    """NodeAddr of a node in the one-line form of `scontrol show node`."""
    for line in listing.splitlines():
        fields = dict(re.findall(r"(\w+)=(\S+)", line))
        if fields.get("NodeName") == name:
            return fields["NodeAddr"]
    raise InputError(f"SLURM does not say where node {name} is: {listing[:200]!r}")


def _interface_address(name: str) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            answer = ioctl(any_socket, _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
        except OSError as error:
            known = ", ".join(interface for _, interface in socket.if_nameindex())
            raise InputError(
                f"network.address.name: {name!r} has no IPv4 address here ({error.strerror}); use of {known}"
            ) from None
    return socket.inet_ntoa(answer[20:24])


def read_variables(site: Site) -> dict[str, str]:
    """The environment that the cluster's file asks for, secrets included; InputError for an open file.

    NCCL and gloo listen on the interface that it names, where it says nothing else.
    """
    variables = _interface_variables(site.network.address) | site.variables
    if not site.secrets:
        return variables
    path = Path(site.secrets).expanduser()
    try:
        mode, text = path.stat().st_mode, path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"secrets: {path}: cannot be read: {error.strerror}") from None
    if mode & 0o077:
        raise InputError(f"secrets: {path}: others may read it; run `chmod 600` on it")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if bad := [number for number, line in enumerate(lines, 1) if not re.match(r"[A-Za-z_]\w*=", line)]:
        raise InputError(f"secrets: {path}: entry {bad[0]} is not NAME=VALUE")
    return variables | dict(line.split("=", 1) for line in lines)


def _interface_variables(address: NodeAddress | InterfaceAddress) -> dict[str, str]:
    if isinstance(address, NodeAddress):
        return {}
    return {"NCCL_SOCKET_IFNAME": address.name, "GLOO_SOCKET_IFNAME": address.name}


def say(message: str) -> None:
    """To the log of this node."""
    print(message, file=sys.stderr, flush=True)
