"""Many rollout servers as one: route, retry, swap weights, bury the dead and raise their successors.

    generate --place--> server --answer | failure--> returned | asked again elsewhere
    update_weights: close the door -> every server takes the offer -> open the door

Waiting rules. `generate` waits for a place (router) and then for the door, which is closed while weights
are swapped: nothing is submitted in between, so a request is stamped with the version it was submitted
under. One keeper (keeper.py) per server starts it again when it ends (local servers; remote ones are waited
for); a new life gets the current weights before it serves. It takes them beside a swap, which never waits
for it, and is let in under the swap lock if they are still current: no server serves anything else. A server
that comes too late for the current version waits as a joiner for the next one.

Old prefix KV is unreachable: every request carries a cache salt that changes with each swap. Requests in
flight keep the KV they have, unless the pool is told to have it recomputed.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Self

import msgspec

from apriel_mcore.errors import PoolError
from apriel_mcore.obs.spans import timed
from apriel_mcore.rollout.client import Answer, ServerFailed
from apriel_mcore.rollout.current import Current, TooSlow
from apriel_mcore.rollout.fleet import Fleet
from apriel_mcore.rollout.keeper import Endpoint, Life, Patience, ServerRecord, State
from apriel_mcore.rollout.router import Router
from apriel_mcore.seams import Ack, Completion, Offer, Sampling

_log = logging.getLogger(__name__)


_ARRIVAL_POLL_S = 0.05
_OVERTAKEN = 3
"""Times that a new version may come while a server takes the one before; then it joins with the next."""


class ServerPool:
    """seams.Pool over vLLM servers. Use as `async with`; everything runs on that event loop."""

    def __init__(
        self, endpoints: Sequence[Endpoint], *, places: int, recompute_kv: bool, patience: Patience
    ) -> None:
        self.fleet = Fleet(endpoints, self, patience, on_end=self._end)
        self._current = Current(recompute_kv=recompute_kv, deadline_s=patience.publish_s)
        self._patience = patience
        self._router: Router[Life] = Router(places)
        self._joiners: list[Life] = []
        self._swap = asyncio.Lock()
        self._door = asyncio.Event()
        self._door.set()
        self._counts: Counter[str] = Counter()

    @property
    def version(self) -> int:
        """Version that newly submitted requests are answered with; -1 before the first update."""
        return self._current.weights.version

    @property
    def states(self) -> dict[str, State]:
        """Of every server, by name."""
        return {keeper.endpoint.name: keeper.state for keeper in self.fleet.keepers}

    @property
    def urls(self) -> list[str]:
        """Addresses of the serving servers."""
        return [server.client.url for server in self._router.servers]

    async def __aenter__(self) -> Self:
        """Start every server and wait for all; the first failure ends the others and is raised."""
        await self.fleet.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop every local server; requests still in flight fail."""
        await self.fleet.stop()
        self._end(PoolError("the rollout pool is closed"))

    async def generate(self, prompt_T: Sequence[int], sampling: Sampling) -> Completion:
        """One sampled answer; asked again when a server fails. PoolError when none is left."""
        key = tuple(prompt_T)
        reason = "aborted by the server"
        for _ in range(self._patience.request_attempts):
            async with self._router.place(key) as server:
                await self._until_open()
                if server.ended.is_set():  # while the door was closed: it may have other weights
                    continue
                version, start = server.version, time.monotonic()
                try:
                    with timed("answer", lane=server.endpoint.name):
                        answer = await server.client.complete(
                            prompt_T, sampling, salt=self._current.weights.salt
                        )
                except ServerFailed as error:
                    reason = str(error)
                    self._counts["failed_requests"] += 1
                    server.deeds.failures += 1
                    server.note_failure(start)
                    await self._suspect(server, reason)
                    continue
                if answer.finish == "abort":
                    self._counts["aborted_requests"] += 1
                    continue
                seconds = time.monotonic() - start
                self._note(server, answer, seconds)
                return Completion(
                    tokens_T=answer.tokens_T,
                    logprobs_T=answer.logprobs_T,
                    text=answer.text,
                    finish=answer.finish,
                    version_first=version,
                    version_last=server.version,
                    seconds=seconds,
                    server=server.endpoint.name,
                )
        raise PoolError(f"a request failed {self._patience.request_attempts} times; last: {reason}")

    async def score(self, tokens_T: Sequence[int]) -> list[list[float]]:
        """Per serving server: log-prob of each token after the first. PoolError when none answers."""
        for _ in range(self._patience.request_attempts):
            await self._router.until_serving()
            await self._until_open()
            servers = self._router.servers
            scores = await asyncio.gather(*(self._probe(server, tokens_T) for server in servers))
            if answered := [score_T for score_T in scores if score_T]:
                return answered
            await asyncio.sleep(self._patience.backoff_s)
        raise PoolError(f"no server scored a text in {self._patience.request_attempts} attempts")

    async def logprobs(self, tokens_T: Sequence[int]) -> list[float]:
        """Log-prob of each token after the first, by one server; PoolError as `generate`."""
        for _ in range(self._patience.request_attempts):
            async with self._router.place(tuple(tokens_T)) as server:
                await self._until_open()
                if not server.ended.is_set() and (scores_T := await self._score(server, tokens_T)):
                    return scores_T
        raise PoolError(f"no server scored a text in {self._patience.request_attempts} attempts")

    async def muster(self) -> list[str]:
        """The servers that the next offer will reach, in order, a name for each life; waits for one."""
        while not (members := self._members()):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._router.until_serving(), self._patience.watch_s)
        return [server.name for server in members]

    async def receive(self, offer: Offer) -> None:
        """The offer's members begin to receive it; PoolError at once when one of them is not there."""
        servers = {server.name: server for server in self._members()}
        missing = [life for life in offer.members if life not in servers]
        if missing:
            raise PoolError(f"version {offer.version}: gone before it was sent: {', '.join(missing)}")
        members = [servers[life] for life in offer.members]
        refusals = await asyncio.gather(*(self._receive(offer, *entry) for entry in enumerate(members)))
        if reasons := [reason for reason in refusals if reason]:
            raise PoolError(f"version {offer.version} cannot be received: {'; '.join(reasons)}")

    async def update_weights(self, offer: Offer) -> list[Ack]:
        """Every server, or every member that received it, takes the offer, which must stand until the next.

        A server that fails, or is no member, leaves the pool. PoolError when healthy servers refuse; when
        all failed, it is raised for an offer that had to be received, and otherwise a successor is waited
        for.
        """
        await asyncio.gather(*(self._until_arrived(offer, server) for server in self._taking(offer)))
        async with self._swap:
            self._door.clear()
            try:
                self._current.replace(offer)
                taking = self._taking(offer)
                for server in self._router.servers:  # who joins since it began can join with the next
                    if server not in taking:
                        self.retire(server, f"it does not receive version {offer.version}")
                refusals = await asyncio.gather(*(self._update(server) for server in taking))
            finally:
                self._door.set()
        reasons = [reason for reason in refusals if reason]
        if reasons and len(reasons) == len(taking):
            raise PoolError(f"no server accepts version {offer.version}: {'; '.join(reasons)}")
        if offer.receive and not self._current.acks:
            raise PoolError(f"no server is left that received version {offer.version}")
        while not self._current.acks:
            if self.needs_weights:  # who came back read other bytes: they changed after they were written
                raise PoolError(f"no server that came back accepts version {offer.version}")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._router.until_serving(), self._patience.watch_s)
        order = [keeper.endpoint.name for keeper in self.fleet.keepers]
        return [self._current.acks[name] for name in order if name in self._current.acks]

    @property
    def needs_weights(self) -> bool:
        """Nobody serves, and somebody would if the current version were sent again."""
        return bool(self._joiners) and not self._router.servers

    def metrics(self) -> dict[str, float]:
        """Levels now, and counts since the start."""
        levels = {
            "pool.serving": len(self._router.servers),
            "pool.joining": len(self._joiners),
            "pool.running": self._router.num_running,
            "pool.waiting": self._router.num_waiting,
        }
        names = ("requests", "tokens", "failed_requests", "aborted_requests", "retired")
        counts = {f"pool.{name}": self._counts[name] for name in names}
        counts["pool.restarts"] = sum(keeper.num_restarts for keeper in self.fleet.keepers)
        numbers = {name: float(value) for name, value in (levels | counts).items()}
        for server in self.roll():
            for name in ("running", "requests", "tokens", "failures", "restarts", "version"):
                numbers[f"pool.{server.name}.{name}"] = float(msgspec.structs.asdict(server)[name])
            numbers[f"pool.{server.name}.seconds_mean"] = server.seconds_mean
        return numbers

    def roll(self) -> list[ServerRecord]:
        """Every server, what it does and has done."""
        return [
            keeper.record(running=self._router.running_on(keeper.life) if keeper.life else 0)
            for keeper in self.fleet.keepers
        ]

    # --- one server ------------------------------------------------------------------------------

    def _note(self, server: Life, answer: Answer, seconds: float) -> None:
        server.failed_in_a_row = 0
        self._counts["requests"] += 1
        self._counts["tokens"] += len(answer.tokens_T)
        server.deeds.requests += 1
        server.deeds.tokens += len(answer.tokens_T)
        server.deeds.seconds += seconds

    def _end(self, error: PoolError) -> None:
        """Nobody will ever answer: whoever waits is told."""
        self._router.fail(error)

    async def _until_open(self) -> None:
        while not self._door.is_set():
            await self._door.wait()

    async def _score(self, server: Life, tokens_T: Sequence[int]) -> list[float]:
        """The server's log-probs; empty when it failed."""
        start = time.monotonic()
        try:
            scores_T = await server.client.score(tokens_T)
        except ServerFailed as error:
            server.note_failure(start)
            await self._suspect(server, str(error))
            return []
        server.failed_in_a_row = 0
        return scores_T

    async def _probe(self, server: Life, tokens_T: Sequence[int]) -> list[float]:
        """As `_score`, also for an engine that is stopped behind a door that answers."""
        try:
            async with self._current.deadline(server, "scored the probe"):
                return await self._score(server, tokens_T)
        except TooSlow as error:
            self.retire(server, str(error))
            return []

    def _members(self) -> list[Life]:
        return [*self._router.servers, *self._joiners]

    def _taking(self, offer: Offer) -> list[Life]:
        """Who takes an offer: all, unless it had to be received."""
        return [s for s in self._members() if not offer.receive or s.name in offer.members]

    async def _receive(self, offer: Offer, member: int, server: Life) -> str:
        """Have a server begin to receive, or part with it; why."""
        try:
            async with self._current.deadline(server, f"begun to receive version {offer.version}"):
                await server.client.receive(offer, member=member)
        except ServerFailed as error:
            self._part_with(server, str(error))
            return str(error)
        return ""

    async def _until_arrived(self, offer: Offer, server: Life) -> None:
        """Requests go on meanwhile: the swap alone is what they wait for."""
        try:
            async with self._current.deadline(server, f"received version {offer.version}"):
                while offer.arrived and not await server.client.has_arrived(offer):
                    await asyncio.sleep(_ARRIVAL_POLL_S)
        except ServerFailed as error:
            self._part_with(server, str(error))

    async def _update(self, server: Life) -> str:
        """Swap a server's weights, or part with it; why, if it is healthy and refused."""
        try:
            await self._current.load(server, self._current.weights)
        except TooSlow as error:
            self._part_with(server, str(error))
            return ""
        except ServerFailed as error:
            refused = await server.client.is_healthy()
            self._part_with(server, str(error))
            return str(error) if refused else ""
        if server in self._joiners:
            self._admit(server)
        return ""

    def _part_with(self, server: Life, reason: str) -> None:
        """A joiner's keeper hears of it from the future that it awaits, a serving one's from its end."""
        if server in self._joiners:
            self._joiners.remove(server)
            server.joined.set_exception(ServerFailed(reason))
        else:
            self.retire(server, reason)

    def _admit(self, server: Life) -> None:
        """It has the current weights: it serves from now on."""
        if server in self._joiners:
            self._joiners.remove(server)
        server.joined.set_result(None)
        self._router.add(server)

    async def _suspect(self, server: Life, reason: str) -> None:
        """A request failed: retire the server unless it says that it is well, and not once too often."""
        failed = server.failed_in_a_row >= self._patience.missed_looks
        if server in self._router.servers and (failed or not await server.client.is_healthy()):
            self.retire(server, reason)

    def retire(self, life: Life, reason: str) -> None:
        """keeper.Home: nothing is asked of the server any more."""
        if life.ended.is_set():
            return
        life.ended.set()
        self._router.remove(life)
        self._current.acks.pop(life.endpoint.name, None)
        self._counts["retired"] += 1
        _log.warning("%s leaves the pool: %s", life.endpoint.name, reason)

    # --- the lives of a server -------------------------------------------------------------------

    async def run_dry(self, life: Life) -> None:
        """keeper.Home: nothing new is asked of the server; until it has answered all."""
        await self._router.run_dry(life)

    async def welcome(self, life: Life) -> None:
        """keeper.Home: the server serves as soon as it has the current weights, maybe the next ones."""
        for _ in range(_OVERTAKEN):
            if await self._lets_in(life):
                break
        else:
            self._joiners.append(life)
        await self._until_joined(life)

    async def _lets_in(self, life: Life) -> bool:
        """False when the weights that it took meanwhile are no longer the current ones."""
        weights = self._current.weights
        has_them = await self._current.has_come_to(life, weights)
        async with self._swap:
            if self._current.weights is not weights:
                return False
            if has_them:
                self._admit(life)
            else:
                self._joiners.append(life)
        return True

    async def _until_joined(self, server: Life) -> None:
        """ServerFailed when no version came that it could take."""
        try:
            await asyncio.wait_for(asyncio.shield(server.joined), self._patience.start_timeout_s)
        except TimeoutError:
            self._part_with(server, "no version was sent that it could have joined with")
            await server.joined
