"""How fast do rollout servers answer? Each step of a server gives every running answer one token.

A step's seconds are linear in the running answers and in the tokens of their contexts, so a server is a
counter of steps: an answer ends when the counter has risen by its tokens. Between two events of a server the
step's time is held fixed; contexts are brought up to date at each.
"""

import heapq
import math

import msgspec

from apriel_mcore.bridge.shape import ModelShape
from apriel_mcore.memory import ServerMemory
from apriel_mcore.planning.flops import Decoder
from apriel_mcore.planning.hardware import Profile
from apriel_mcore.planning.simulation import TrainerApart


class Decode(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds of one server."""

    step_s: float
    per_request_s: float
    per_token_s: float
    """For each token of KV cache that a step reads."""
    prefill_s: float
    """Of one answer's share of its prompt: siblings share the prefix cache. All others wait for it."""

    def step(self, running: int, context_tokens: float) -> float:
        """One token for each of `running` answers."""
        return self.step_s + self.per_request_s * running + self.per_token_s * context_tokens

    def tokens_per_s(self, running: int, mean_context: float) -> float:
        """In a steady state."""
        return running / self.step(running, running * mean_context)


def decode(
    shape: ModelShape, memory: ServerMemory, profile: Profile, *, tensor: int, prompt: float, group_size: int
) -> Decode:
    """Of a server of `tensor` devices: a roofline with additive parts."""
    found = profile.decode
    decoder = Decoder.of(shape)
    speed = profile.device.memory_gb_s * 1e9 * found.memory
    flops = 2 * (decoder.num_layers * decoder.layer_weights + decoder.head_weights) / tensor
    seconds_per_token = flops / (profile.device.bf16_tflops * 1e12 * found.gemm)
    waits = 2 * decoder.num_layers * profile.wires.latency_us * 1e-6 if tensor > 1 else 0.0
    return Decode(
        step_s=memory.weights / speed + found.step_overhead_ms * 1e-3 + waits,
        per_request_s=seconds_per_token,
        per_token_s=memory.bytes_per_token / speed,
        prefill_s=prompt / group_size * seconds_per_token,
    )


class Publish(msgspec.Struct, frozen=True, kw_only=True):
    """New weights for some number of servers."""

    seconds: float
    """From a step's end until they have the weights and the probe agreed."""
    swap_s: float
    """Of it, a server stands still."""


class _Server:
    """The counter of one server and the answers that wait for it."""

    def __init__(self) -> None:
        self.steps = 0.0
        self.clock = 0.0
        """Simulated time up to which `steps` has been counted; ahead of now while it prefills."""
        self.context = 0.0
        self.running: list[tuple[float, int, int, float]] = []
        """Heap of (counter at its end, number, group, tokens)."""
        self.stamp = 0


class Fleet(TrainerApart):
    """Equal servers behind a router: siblings together while there is room, else the least loaded."""

    def __init__(self, model: Decode, *, count: int, places: int, prompt: float, swap_s: float = 0.0) -> None:
        """`swap_s`: seconds for which every server stands still when a step's weights arrive."""
        super().__init__()
        self._swap_s = swap_s
        self._model = model
        self._places = places
        self._prompt = prompt
        self._servers = [_Server() for _ in range(count)]
        self._free = count * places
        self._loads = [(0, number) for number in range(count)]
        self._ends: list[tuple[float, int, int]] = []
        """Heap of (time, server, stamp); an entry whose stamp is old is void."""
        self._changed: set[int] = set()
        """Servers of which the heaps do not know yet: answers come and go several at a time."""
        self._home: dict[int, int] = {}
        self._num_started = 0
        self._speed = 1.0
        """Of every server, over what `model` says."""
        self.busy_seconds = 0.0

    def has_room(self) -> bool:
        """Whether any server has a free place."""
        return self._free > 0

    def start(self, group_id: int, work: float, now: float) -> None:
        """`work` is the answer's tokens."""
        number = self._choose(group_id)
        server = self._servers[number]
        self._count(server, now)
        server.clock = max(server.clock, now) + self._model.prefill_s / self._speed
        self._num_started += 1
        heapq.heappush(server.running, (server.steps + work, self._num_started, group_id, work))
        server.context += self._prompt
        self._free -= 1
        self._changed.add(number)

    def next_end(self) -> float:
        """Infinity when idle."""
        self._settle()
        while self._ends and self._ends[0][2] != self._servers[self._ends[0][1]].stamp:
            heapq.heappop(self._ends)
        return self._ends[0][0] if self._ends else math.inf

    def end(self) -> int:
        """The group whose answer ends next."""
        when = self.next_end()
        number = self._ends[0][1]
        server = self._servers[number]
        self._count(server, when)
        server.steps, _, group_id, work = heapq.heappop(server.running)
        server.context = max(0.0, server.context - work - self._prompt)
        self._free += 1
        self._changed.add(number)
        return group_id

    def end_training(self, now: float) -> None:
        """As Pool; the time that servers stood still for the new weights is counted here."""
        super().end_training(now)
        if self._swap_s:
            for number, server in enumerate(self._servers):
                self._count(server, now)
                server.clock = max(server.clock, now) + self._swap_s
                self._changed.add(number)

    def _choose(self, group_id: int) -> int:
        home = self._home.get(group_id)
        if home is not None and len(self._servers[home].running) < self._places:
            return home
        self._settle()
        while self._loads[0][0] != len(self._servers[self._loads[0][1]].running):
            heapq.heappop(self._loads)
        number = self._loads[0][1]
        self._home[group_id] = number
        return number

    def _count(self, server: _Server, now: float) -> None:
        """Let the counter rise to `now`."""
        if now <= server.clock:
            return
        if server.running:
            worked = (now - server.clock) * self._speed
            steps = worked / self._model.step(len(server.running), server.context)
            server.steps += steps
            server.context += steps * len(server.running)
            self.busy_seconds += now - server.clock
        server.clock = now

    def _settle(self) -> None:
        """When do changed servers end an answer, and how many do they have?"""
        for number in self._changed:
            server = self._servers[number]
            server.stamp += 1
            heapq.heappush(self._loads, (len(server.running), number))
            if server.running:
                left = max(0.0, server.running[0][0] - server.steps)
                seconds = left * self._model.step(len(server.running), server.context) / self._speed
                heapq.heappush(self._ends, (server.clock + seconds, number, server.stamp))
        self._changed.clear()
