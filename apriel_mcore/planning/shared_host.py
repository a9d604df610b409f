"""What do a trainer and servers on the same cores leave each other?

    speeds: threads that want to run share the cores evenly; servers keep to the first half of them
    SharedFleet: servers whose speed changes when an optimizer step begins or ends, and a trainer whose
                 speed changes when a server begins or ends work

The servers' half is that of `rollout/server_spec.thread_binding`; the trainer's threads go where there is
room. Constants are fitted to runs (host_fit.py).
"""

import math

import msgspec

from apriel_mcore.errors import InputError
from apriel_mcore.planning.pool import Decode, Fleet, Publish


class HostPublish(Publish, frozen=True, kw_only=True):
    """`seconds` are those where no answer runs."""

    beside: float
    """What each server with answers leaves of its speed: most of a publish is work of the servers."""


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """One machine that runs trainer and servers, as a model sees it."""

    num_cores: int
    decode: Decode
    """Of a server whose cores are its own."""
    train_fixed_s: float
    """Of an optimizer step by one thread, however few its tokens."""
    train_token_s: float
    parallel_share: float
    """Of a step's work that more threads divide among them (Amdahl)."""
    publish: dict[int, HostPublish]
    """By number of servers: those that share a core hinder each other more than their shares say."""
    trainer_beside: float
    """What each busy server leaves of the trainer's speed besides its own cores: memory, caches, its engine
    process that waits by spinning, requests and their judges."""
    server_beside: float
    """Speed of a server beside the trainer, whatever its share of the cores: while it waits for its engine
    process and for requests, other servers have the core."""

    def step_seconds(self, tokens: float, *, threads: int) -> float:
        """Of an optimizer step with nobody beside it; its publish comes on top."""
        one = self.train_fixed_s + self.train_token_s * tokens
        return one * (1 - self.parallel_share + self.parallel_share / threads)

    def publish_to(self, num_servers: int) -> HostPublish:
        """InputError when no run said it."""
        if num_servers not in self.publish:
            raise InputError(
                "calibrate host: give also a run with rollout.max_lag=0 and one with a max_lag above 0, both "
                f"with rollout.servers.count={num_servers}"
            )
        return self.publish[num_servers]

    def speeds(self, *, threads: int, num_servers: int, num_busy: int, training: bool) -> tuple[float, float]:
        """Of the trainer and of each busy server, over those that they have alone."""
        half = max(1, self.num_cores // 2)
        wanted = num_busy * max(1, half // num_servers)
        own = min(1.0, half / wanted) if wanted else 1.0
        if not training:
            return 1.0, own
        if not wanted:
            return 1.0, 1.0
        trainer, server = self._shares(threads, wanted, own)
        return trainer * self.trainer_beside**num_busy, min(server, self.server_beside)

    def _shares(self, threads: int, wanted: int, own: float) -> tuple[float, float]:
        """Of the cores, over a whole step: but in the part that is divided, all of its threads but one sleep
        (launcher.thread_environment)."""
        parts = ((1 - self.parallel_share, 1), (self.parallel_share / threads, threads))
        took = shared = 0.0
        for alone, awake in parts:
            server = min(own, self.num_cores / (awake + wanted))
            seconds = alone / min(1.0, (self.num_cores - server * wanted) / awake)
            took += seconds
            shared += seconds * server
        return sum(alone for alone, _ in parts) / took, shared / took


class SharedFleet(Fleet):
    """Servers beside a trainer of `threads` threads."""

    def __init__(self, host: Host, *, threads: int, count: int, places: int) -> None:
        """InputError where `host` does not know how long as many servers take over new weights."""
        publish = host.publish_to(count)
        super().__init__(host.decode, count=count, places=places, prompt=0.0, swap_s=publish.swap_s)
        self._host = host
        self._publish = publish
        self._threads = threads
        self._left = math.inf
        """Seconds that the optimizer step in progress would still take alone, without its publish."""
        self._publish_left = math.inf
        """Seconds that its publish would still take with no answer running."""
        self._seen = 0.0
        """Time up to which both have been counted."""
        self._trainer_speed = self._publish_speed = 1.0

    def start(self, group_id: int, work: float, now: float) -> None:
        """As Fleet."""
        super().start(group_id, work, now)
        self._share(now)

    def end(self) -> int:
        """As Fleet."""
        now = self.next_end()
        group_id = super().end()
        self._share(now)
        return group_id

    def begin_training(self, seconds: float, now: float) -> None:
        """As Pool; the publish comes on top."""
        self._share(now)
        self._left, self._publish_left = seconds, self._publish.seconds
        self._share(now)

    def end_training(self, now: float) -> None:
        """As Fleet."""
        self._share(now)
        self._left = self._publish_left = math.inf
        self._share(now)
        super().end_training(now)

    def _share(self, now: float) -> None:
        """Bring everybody's work up to date and give them the speeds that hold from here on."""
        self._work_until(now)
        num_busy = sum(bool(server.running) for server in self._servers)
        self._trainer_speed, speed = self._host.speeds(
            threads=self._threads,
            num_servers=len(self._servers),
            num_busy=num_busy,
            training=self._publish_left < math.inf,
        )
        self._publish_speed = self._publish.beside**num_busy
        self.train_end = now + self._left / self._trainer_speed + self._publish_left / self._publish_speed
        if speed != self._speed:
            for server in self._servers:
                self._count(server, now)
            self._speed = speed
            self._changed.update(range(len(self._servers)))

    def _work_until(self, now: float) -> None:
        """Count the trainer's work: the step, then its publish."""
        elapsed, self._seen = now - self._seen, now
        training = min(elapsed, self._left / self._trainer_speed)
        self._left = max(0.0, self._left - training * self._trainer_speed)
        self._publish_left = max(0.0, self._publish_left - (elapsed - training) * self._publish_speed)
