"""A weight version on its way: packed and sent by trainer ranks, received and unpacked by server ranks.

    chunks[i][parameter][box] --pack--> message --channel--> message --unpack--> what the server rank keeps

Both sides follow the same StreamPlan, and work on one message while others are under way. A digest of every
message is taken on both sides; in the plan's order they make up the digest of all that a server rank got.
"""

import hashlib
from collections import deque
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch._C._distributed_c10d import TCPStore

from apriel_mcore.bridge.arena import torch_dtype
from apriel_mcore.bridge.channel import Channel, Meeting, Passing
from apriel_mcore.bridge.layouts import Box
from apriel_mcore.bridge.receipt import digest_of_tensor
from apriel_mcore.bridge.reshard import Chunks
from apriel_mcore.bridge.stream import Message, Rank, StreamPlan
from apriel_mcore.seams import Sent

IN_FLIGHT = 2
"""Messages of one rank that are on their way at once."""

type Digests = dict[int, str]
"""Number of a message in the plan -> digest of its bytes."""


class Sender:
    """The side of one exporting trainer rank."""

    def __init__(self, plan: StreamPlan, source: Rank, device: torch.device) -> None:
        self._source = source
        self._messages = [entry for entry in enumerate(plan.messages) if entry[1].source == source]
        largest = max((message.num_bytes for _, message in self._messages), default=0)
        self._buffers = [torch.empty(largest, dtype=torch.uint8, device=device) for _ in range(IN_FLIGHT)]
        self._channels: dict[int, Channel] = {}

    def join(self, meeting: Meeting, store: TCPStore) -> None:
        """Meet the servers of a new membership; BridgeError when one does not come."""
        targets = sorted({message.target for _, message in self._messages})
        self._channels = {
            target: Channel(meeting, _name(self._source, target), 0, store) for target in targets
        }

    @property
    def num_bytes(self) -> int:
        """Put into this membership's channels so far."""
        return sum(channel.num_bytes for channel in self._channels.values())

    @torch.no_grad()
    def send(self, chunks: Chunks) -> Digests:
        """Send this rank's part of a version; BridgeError when a server is gone."""
        digests: Digests = {}
        under_way: deque[Passing] = deque()
        for turn, (number, message) in enumerate(self._messages):
            if len(under_way) == IN_FLIGHT:
                under_way.popleft().wait()
            buffer = self._buffers[turn % IN_FLIGHT][: message.num_bytes]
            _pack(chunks, message, buffer.view(torch_dtype(message.dtype)))
            under_way.append(self._channels[message.target].pass_on(buffer))
            digests[number] = digest_of_tensor(buffer)
        for passing in under_way:
            passing.wait()
        return digests


class Receiver:
    """The side of one tensor rank of a server."""

    def __init__(self, plan: StreamPlan, target: int, device: torch.device) -> None:
        self._plan = plan
        self._target = target
        self._messages = [message for message in plan.messages if message.target == target]
        largest = max(message.num_bytes for message in self._messages)
        self._buffers = [torch.empty(largest, dtype=torch.uint8, device=device) for _ in range(IN_FLIGHT)]
        self._channels: dict[Rank, Channel] = {}

    def join(self, meeting: Meeting, member: int, store: TCPStore) -> None:
        """Meet the trainer's ranks as server number `member`; BridgeError when they do not come."""
        sources = sorted({message.source for message in self._messages})
        self._channels = {
            source: Channel(meeting, _name(source, self._target), member + 1, store) for source in sources
        }

    @property
    def num_bytes(self) -> int:
        """Taken out of this membership's channels so far."""
        return sum(channel.num_bytes for channel in self._channels.values())

    def receive(self, views: Mapping[str, Tensor]) -> Sent:
        """Fill `views`, which have the plan's `sizes_of` this rank; what was received.

        BridgeError when a trainer rank is gone.
        """
        digests: list[str] = []
        expected: deque[tuple[Message, Tensor, Passing]] = deque()
        for turn, message in enumerate(self._messages):
            if len(expected) == IN_FLIGHT:
                digests.append(self._unpack(*expected.popleft(), views))
            buffer = self._buffers[turn % IN_FLIGHT][: message.num_bytes]
            passing = self._channels[message.source].pass_on(buffer)
            expected.append((message, buffer, passing))
        for entry in expected:
            digests.append(self._unpack(*entry, views))
        return _sent(self._plan, self._target, digests)

    def _unpack(self, message: Message, buffer: Tensor, passing: Passing, views: Mapping[str, Tensor]) -> str:
        passing.wait()
        boxes = self._plan.boxes_R[self._target]
        packed = buffer.view(torch_dtype(message.dtype))
        start = 0
        for piece in message.slices:
            view = views[piece.hf][_index(_within(piece.hf_box, boxes[piece.hf]))]
            view.copy_(packed[start : start + view.numel()].view(view.shape))
            start += view.numel()
        return digest_of_tensor(buffer)


def sent_to(plan: StreamPlan, digests: Digests) -> tuple[Sent, ...]:
    """What each server rank must have received, from what all trainer ranks sent."""
    return tuple(
        _sent(plan, target, [digests[number] for number, m in enumerate(plan.messages) if m.target == target])
        for target in range(plan.num_targets)
    )


def _sent(plan: StreamPlan, target: int, digests: Sequence[str]) -> Sent:
    return Sent(
        num_tensors=len(plan.whole_sizes),
        num_bytes=plan.num_bytes_to(target),
        digest=hashlib.blake2b("".join(digests).encode(), digest_size=16).hexdigest(),
        quantised=plan.quantised,
    )


def _pack(chunks: Chunks, message: Message, buffer: Tensor) -> None:
    start = 0
    for piece in message.slices:
        source = chunks[piece.chunk][piece.parameter][_index(piece.shard)]
        buffer[start : start + source.numel()].view(source.shape).copy_(source)
        start += source.numel()


def _within(box: Box, outer: Box) -> Box:
    """The same box, counted from the corner of an outer one."""
    return tuple((start - first, stop - first) for (start, stop), (first, _) in zip(box, outer, strict=True))


def _index(box: Box) -> tuple[slice, ...]:
    return tuple(slice(start, stop) for start, stop in box)


def _name(source: Rank, target: int) -> str:
    return f"stage{source[0]}-rank{source[1]}-to{target}"
