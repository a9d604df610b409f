"""How does a trainer rank speak to the servers' workers, with whom it shares no torch.distributed world?

    trainer rank --root--> [tensor rank r of server 0, of server 1, ...]     one channel for each r

A channel is a process group of its own, over gloo between CPUs and NCCL between GPUs. Its members meet at
a store that the first trainer rank keeps. Only the root sends; what it sends reaches every server at once.
"""

import socket
from datetime import timedelta
from typing import Any, Literal

import msgspec
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore, TCPStore

from apriel_mcore.errors import BridgeError, InputError

Backend = Literal["gloo", "nccl"]


class Meeting(msgspec.Struct, frozen=True, kw_only=True):
    """Where and under which name the members of one membership find each other."""

    host: str
    port: int
    name: str
    """Never used twice: a store forgets nothing."""
    num_servers: int
    backend: Backend
    timeout_s: int
    """Of joining, and of every message."""


class Channel:
    """One member's end; the root is member 0, server i member i + 1."""

    def __init__(self, meeting: Meeting, name: str, member: int, store: TCPStore) -> None:
        """Waits until every member is here; BridgeError when one does not come."""
        self._name = f"{meeting.name}/{name}"
        self.num_bytes = 0
        """Passed so far."""
        self._timeout = timedelta(seconds=meeting.timeout_s)
        shared = PrefixStore(self._name, store)
        size = meeting.num_servers + 1
        try:
            self._group = _group(meeting, shared, member, size, self._timeout)
        except RuntimeError as error:
            raise BridgeError(f"channel {self._name}: member {member} of {size} is alone: {error}") from None

    def pass_on(self, buffer: Tensor) -> "Passing":
        """Begin to send (root) or to receive (others) the bytes of `buffer`, which must stay as it is."""
        self.num_bytes += buffer.nbytes
        try:
            return Passing(self._name, self._group.broadcast(buffer, root=0, timeout=self._timeout))
        except RuntimeError as error:
            raise BridgeError(f"channel {self._name} broke: {error}") from None


class Passing:
    """A message on its way."""

    def __init__(self, name: str, work: Any) -> None:
        self._name = name
        self._work = work

    def wait(self) -> None:
        """Until the buffer may be read, or filled anew; BridgeError when a member is gone."""
        try:
            self._work.wait()
        except RuntimeError as error:
            raise BridgeError(f"channel {self._name} broke: {error}") from None


def keep_store(host: str, port: int, timeout_s: int) -> TCPStore:
    """The store of all meetings, on the first trainer rank; port 0 chooses a free one.

    InputError when `host` is not this host's, or the port is taken.
    """
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen()
    except OSError as error:
        listening.close()
        raise InputError(
            f"publish.host, publish.port: cannot listen on {host}:{port} ({error.strerror}); give an address "
            "of the first trainer rank's host, and a free port or 0"
        ) from None
    # By itself it would listen on every interface, and it asks nobody who they are: `host` alone is bound.
    return TCPStore(
        host,
        listening.getsockname()[1],
        is_master=True,
        wait_for_workers=False,
        timeout=timedelta(seconds=timeout_s),
        master_listen_fd=listening.detach(),
        use_libuv=False,
    )


def visit_store(meeting: Meeting) -> TCPStore:
    """The same store, from another process; BridgeError when it is not there."""
    try:
        return TCPStore(
            meeting.host,
            meeting.port,
            is_master=False,
            timeout=timedelta(seconds=meeting.timeout_s),
            use_libuv=False,
        )
    except RuntimeError as error:
        raise BridgeError(f"nobody meets at {meeting.host}:{meeting.port}: {error}") from None


def _group(meeting: Meeting, store: Any, member: int, size: int, timeout: timedelta) -> Any:
    if meeting.backend == "nccl":
        options: Any = dist.ProcessGroupNCCL.Options()
        options._timeout = timeout
        return dist.ProcessGroupNCCL(store, member, size, options)
    options = dist.ProcessGroupGloo._Options()  # pyright: ignore[reportAttributeAccessIssue]
    options._timeout = timeout
    # Listen only where the meeting can be reached from: loopback stays loopback.
    options._devices = [dist.ProcessGroupGloo.create_device(hostname=_own_address(meeting))]
    return dist.ProcessGroupGloo(store, member, size, options)


def _own_address(meeting: Meeting) -> str:
    """This host's address on the route to the meeting; no packet is sent."""
    try:
        family, _, _, _, address = socket.getaddrinfo(meeting.host, meeting.port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(address)
            return probe.getsockname()[0]
    except OSError as error:
        raise BridgeError(f"no route to the meeting at {meeting.host}: {error.strerror}") from None
