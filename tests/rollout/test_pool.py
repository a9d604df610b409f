"""Pool logic against small HTTP servers that answer like vLLM, misbehave on request, and die."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest
from aiohttp import web

from apriel_mcore import secret
from apriel_mcore.errors import PoolError
from apriel_mcore.rollout.keeper import Patience
from apriel_mcore.rollout.pool import ServerPool
from apriel_mcore.seams import Ack, Offer, Sampling, Sent, arena_offer

SAMPLING = Sampling(max_tokens=4, temperature=1.0, stop=("\n",))
PATIENCE = Patience(
    start_timeout_s=5.0, request_attempts=3, restarts=2, backoff_s=0.01, watch_s=0.02, missed_looks=2
)


class FakeServer:
    """An endpoint of the pool and the vLLM behind it in one."""

    url = ""
    token = "t"

    def __init__(self, name: str) -> None:
        self.name = name
        self.starts = 0
        self.alive = False
        self.healthy = True
        self.can_start = True
        self.requests: list[dict[str, Any]] = []
        self.loaded: list[tuple[str, int]] = []
        self.resets = 0
        self.forgotten = 0
        self.prepared: list[tuple[int, int]] = []
        self.has_copy = True
        self.arrived = True
        self.breaks_scoring = False
        self.digest = "d"
        self.reset_works = True
        self.refuses_weights = False
        self.fail_next = 0
        self.abort_next = 0
        self.gate = asyncio.Event()
        self.update_gate = asyncio.Event()
        self.gate.set()
        self.update_gate.set()
        self.busy = 0
        self.most_busy = 0
        self.status = 200
        self.nonsense = b""
        """What it says to every request for an answer, if anything."""
        self.life = "first"
        self.stuck_at = ""
        """The method at which it hangs."""
        self.hangs_scoring = False
        self.start_errors: list[OSError] = []
        self._runner: web.AppRunner | None = None

    def start(self) -> None:
        self.starts += 1
        if self.start_errors:
            raise self.start_errors.pop()
        self.alive = self.can_start

    async def wait_ready(self, timeout_s: float) -> None:
        if not self.can_start:
            raise PoolError(f"{self.name} ended before it was ready")
        app = web.Application()
        app.on_response_prepare.append(self._sign)
        app.router.add_get("/health", self._health)
        app.router.add_post("/v1/completions", self._complete)
        app.router.add_post("/collective_rpc", self._load)
        app.router.add_post("/update_weight_version", self._note_version)
        app.router.add_post("/reset_prefix_cache", self._reset)
        self._runner = web.AppRunner(app, shutdown_timeout=0.01)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        self.alive = False
        runner, self._runner = self._runner, None
        if runner:
            await runner.cleanup()

    def forget(self) -> None:
        self.forgotten += 1

    async def die(self) -> None:
        await self.stop()

    async def _sign(self, _: web.Request, response: web.StreamResponse) -> None:
        response.headers[secret.LIFE_HEADER] = self.life

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response(status=200 if self.healthy else 503)

    async def _complete(self, request: web.Request) -> web.Response:
        body = await request.json()
        if "prompt_logprobs" in body and self.hangs_scoring:
            await asyncio.sleep(30)
        if "prompt_logprobs" in body and self.breaks_scoring:
            return web.Response(status=500, text="engine hiccup")
        if "prompt_logprobs" in body:
            entries = [None, *({str(token): {"logprob": -float(token)}} for token in body["prompt"][1:])]
            return web.json_response({"choices": [{"prompt_logprobs": entries}]})
        self.requests.append(body)
        self.busy += 1
        self.most_busy = max(self.most_busy, self.busy)
        try:
            await self.gate.wait()
        finally:
            self.busy -= 1
        if self.status != 200:
            return web.Response(status=self.status, text="prompt too long")
        if self.nonsense:
            return web.Response(body=self.nonsense)
        if self.fail_next:
            self.fail_next -= 1
            return web.Response(status=500, text="engine hiccup")
        finish = "length"
        if self.abort_next:
            self.abort_next, finish = self.abort_next - 1, "abort"
        choice = {
            "text": self.name,
            "finish_reason": finish,
            "token_ids": [1, 2],
            "logprobs": {"token_logprobs": [-0.5, -0.25]},
        }
        return web.json_response({"choices": [choice]})

    async def _load(self, request: web.Request) -> web.Response:
        call = await request.json()
        if call["method"] == self.stuck_at:
            await asyncio.sleep(30)
        if call["method"] == "receive":
            self.prepared.append((int(call["kwargs"]["version"]), int(call["kwargs"]["member"])))
            return web.json_response({"results": [None]})
        if call["method"] == "has_arrived":
            return web.json_response({"results": [{"arrived": self.arrived}]})
        if call["method"] == "take_received" and not self.prepared and not self.has_copy:
            return web.Response(status=500, text="not on this host")
        await self.update_gate.wait()
        if self.refuses_weights:
            return web.Response(status=500, text="tensors differ")
        path, version = call["kwargs"].get("path", ""), int(call["kwargs"]["version"])
        self.loaded.append((path, version))
        read = {"num_tensors": 3, "num_bytes": 10, "digest": self.digest}
        return web.json_response({"results": [{"version": version, "read": read}]})

    async def _note_version(self, _: web.Request) -> web.Response:
        return web.json_response({"success": True})

    async def _reset(self, request: web.Request) -> web.Response:
        assert request.query["reset_running_requests"] == "true"
        self.resets += 1
        return web.json_response({"success": self.reset_works})


Scenario = Callable[[ServerPool, list[FakeServer]], Coroutine[Any, Any, None]]


def _play(
    scenario: Scenario, *, servers: int = 2, places: int = 2, recompute_kv: bool = False
) -> list[FakeServer]:
    async def play() -> list[FakeServer]:
        fakes = [FakeServer(f"server-{index}") for index in range(servers)]
        async with ServerPool(fakes, places=places, recompute_kv=recompute_kv, patience=PATIENCE) as pool:
            await asyncio.wait_for(scenario(pool, fakes), 20.0)
        assert not any(fake.alive for fake in fakes)
        assert all(fake.forgotten == 1 for fake in fakes)
        return fakes

    return asyncio.run(play())


async def send(pool: ServerPool, version: int) -> list[Ack]:
    """A version that servers must receive before they take it."""
    offer = received_offer(version, await pool.muster())
    await pool.receive(offer)
    return await pool.update_weights(offer)


def received_offer(version: int, members: Sequence[str]) -> Offer:
    """Of a version that these servers receive before they take it."""
    return Offer(
        version=version,
        receive="receive",
        arrived="has_arrived",
        take="take_received",
        arguments={"route": "r"},
        members=tuple(members),
    )


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():  # the scenario has a time limit
        await asyncio.sleep(0.005)


def test_a_request_says_everything_and_the_answer_is_stamped() -> None:
    async def scenario(pool: ServerPool, fakes: list[FakeServer]) -> None:
        await pool.update_weights(arena_offer("/arena", 7))
        done = await pool.generate((5, 6), SAMPLING)
        assert (done.tokens_T, done.logprobs_T, done.finish) == ((1, 2), (-0.5, -0.25), "length")
        assert (done.version_first, done.version_last, done.server) == (7, 7, "server-0")
        (body,) = fakes[0].requests
        assert body["prompt"] == [5, 6]
        assert (body["temperature"], body["top_p"], body["top_k"]) == (1.0, 1.0, 0)
        assert (body["logprobs"], body["return_token_ids"], body["stop"]) == (0, True, ["\n"])
        assert "seed" not in body

    _play(scenario, servers=1)


def test_each_version_has_a_salt_of_its_own_even_when_a_number_returns() -> None:
    async def scenario(pool: ServerPool, fakes: list[FakeServer]) -> None:
        await pool.generate((1,), SAMPLING)
        for version in (1, 2, 1):
            await pool.update_weights(arena_offer("/arena", version))
            await pool.generate((1,), SAMPLING)
            await pool.generate((1,), SAMPLING)
        salts = [body["cache_salt"] for body in fakes[0].requests]
        assert len(set(salts)) == 4
        assert salts[1] == salts[2]

    _play(scenario, servers=1)


def test_submissions_wait_while_weights_are_swapped_and_running_requests_go_on() -> None:
    async def scenario(pool: ServerPool, fakes: list[FakeServer]) -> None:
        (fake,) = fakes
        fake.gate.clear()
        running = asyncio.create_task(pool.generate((1,), SAMPLING))
        await _until(lambda: fake.busy == 1)
        fake.update_gate.clear()
        update = asyncio.create_task(pool.update_weights(arena_offer("/arena", 3)))
        await asyncio.sleep(0.02)
        held = asyncio.create_task(pool.generate((2,), SAMPLING))
        await asyncio.sleep(0.05)
        assert len(fake.requests) == 1  # the second one is held
        fake.update_gate.set()
        (ack,) = await update
        fake.gate.set()
        assert (ack.version, ack.read_R[0].digest, ack.server) == (3, "d", "server-0")
        first, second = await running, await held
        assert (first.version_first, first.version_last) == (-1, 3)
        assert (second.version_first, second.version_last) == (3, 3)

    _play(scenario, servers=1)


def test_no_server_holds_more_than_its_places_and_siblings_stay_together() -> None:
    async def scenario(pool: ServerPool, fakes: list[FakeServer]) -> None:
        answers = await asyncio.gather(*(pool.generate((i // 2,), SAMPLING) for i in range(12)))
        assert len(answers) == 12
        assert all(fake.most_busy <= 2 for fake in fakes)

    _play(scenario)

    async def siblings(pool: ServerPool, fakes: list[FakeServer]) -> None:
        answers = await asyncio.gather(*(pool.generate((9,), SAMPLING) for _ in range(8)))
        assert len({answer.server for answer in answers}) == 1

    _play(siblings, places=8)


def test_hiccups_and_aborts_are_asked_again_without_burying_the_server() -> None:
    async def scenario(pool: ServerPool, fakes: list[FakeServer]) -> None:
        fakes[0].fail_next = 1
        assert (await pool.generate((1,), SAMPLING)).text == "server-0"
        fakes[0].abort_next = 1
        assert (await pool.generate((1,), SAMPLING)).finish == "length"
        metrics = pool.metrics()
        assert (metrics["pool.failed_requests"], metrics["pool.aborted_requests"]) == (1.0, 1.0)
        assert (metrics["pool.retired"], metrics["pool.requests"]) == (0.0, 2.0)
        fakes[0].fail_next = 3
        with pytest.raises(PoolError, match=r"failed 3 times.*engine hiccup"):
            await pool.generate((1,), SAMPLING)

    _play(scenario, servers=1)


def test_a_refused_request_is_an_error_at_once() -> None:
    async def scenario(pool: ServerPool, fakes: list[FakeServer]) -> None:
        fakes[0].status = 400
        with pytest.raises(PoolError, match="refused: HTTP 400: prompt too long"):
            await pool.generate((1,), SAMPLING)
        assert len(fakes[0].requests) == 1

    _play(scenario, servers=1)


def test_requests_of_a_dead_server_go_elsewhere_and_its_successor_gets_the_weights_first() -> None:
    async def scenario(pool: ServerPool, fakes: list[FakeServer]) -> None:
        await pool.update_weights(arena_offer("/arena", 4))
        doomed, other = fakes
        doomed.gate.clear()
        tasks = [asyncio.create_task(pool.generate((1,), SAMPLING)) for _ in range(2)]
        await _until(lambda: doomed.busy == 2)
        await doomed.die()
        doomed.gate.set()
        assert [answer.server for answer in await asyncio.gather(*tasks)] == ["server-1", "server-1"]
        await _until(lambda: pool.metrics()["pool.serving"] == 2.0)
        assert (doomed.starts, doomed.loaded) == (2, [("/arena", 4), ("/arena", 4)])
        assert other.loaded == [("/arena", 4)]

    _play(scenario)


def test_an_idle_death_and_a_hung_server_are_noticed() -> None:
    async def scenario(pool: ServerPool, fakes: list[FakeServer]) -> None:
        await fakes[0].die()
        await _until(lambda: pool.metrics()["pool.retired"] == 1.0)
        await _until(lambda: pool.metrics()["pool.serving"] == 2.0)
        fakes[1].gate.clear()
        stuck = asyncio.create_task(pool.generate((1,), SAMPLING))
        other = asyncio.create_task(pool.generate((2,), SAMPLING))
        await asyncio.sleep(0.02)
        fakes[1].healthy = False
        await _until(lambda: pool.states["server-1"] == "suspect")
        assert pool.states["server-0"] == "serving"
        await _until(lambda: pool.states["server-1"] in ("dead", "restarting"))
        await _until(lambda: fakes[1].starts == 2)
        fakes[1].healthy = True
        fakes[1].gate.set()
        await asyncio.gather(stuck, other)

    _play(scenario)


def test_requests_wait_for_the_only_server_to_come_back() -> None:
    async def scenario(pool: ServerPool, fakes: list[FakeServer]) -> None:
        await pool.update_weights(arena_offer("/a", 1))
        await fakes[0].die()
        assert (await pool.generate((1,), SAMPLING)).version_first == 1
        assert fakes[0].loaded == [("/a", 1), ("/a", 1)]
        await fakes[0].die()
        assert await pool.score((1, 2, 3)) == [[-2.0, -3.0]]

    _play(scenario, servers=1)


def test_an_update_of_a_server_that_just_died_waits_for_its_successor() -> None:
    async def scenario(pool: ServerPool, fakes: list[FakeServer]) -> None:
        await fakes[0].die()
        (ack,) = await pool.update_weights(arena_offer("/a", 1))
        assert (ack.version, fakes[0].starts, fakes[0].loaded) == (1, 2, [("/a", 1)])

    _play(scenario, servers=1)


def test_when_restarts_are_used_up_everyone_is_told() -> None:
    async def scenario(pool: ServerPool, fakes: list[FakeServer]) -> None:
        fakes[0].can_start = False
        await fakes[0].die()
        with pytest.raises(PoolError, match="no rollout server is left"):
            await pool.generate((1,), SAMPLING)
        assert fakes[0].starts == 1 + PATIENCE.restarts
        with pytest.raises(PoolError, match="no rollout server is left"):
            await pool.score((1, 2))

    _play(scenario, servers=1)


def test_weights_that_every_healthy_server_refuses_are_an_error_at_once() -> None:
    async def scenario(pool: ServerPool, fakes: list[FakeServer]) -> None:
        for fake in fakes:
            fake.refuses_weights = True
        with pytest.raises(PoolError, match=r"no server accepts version 2: .*tensors differ"):
            await pool.update_weights(arena_offer("/a", 2))

    _play(scenario)


def test_a_server_that_fails_an_update_leaves_and_the_rest_go_on() -> None:
    async def scenario(pool: ServerPool, fakes: list[FakeServer]) -> None:
        fakes[1].refuses_weights = True
        fakes[1].can_start = False
        acks = await pool.update_weights(arena_offer("/a", 2))
        assert [ack.server for ack in acks] == ["server-0"]
        answers = await asyncio.gather(*(pool.generate((i,), SAMPLING) for i in range(4)))
        assert {answer.server for answer in answers} == {"server-0"}

    _play(scenario)


def test_a_successor_that_reads_other_bytes_waits_for_the_next_version() -> None:
    async def scenario(pool: ServerPool, fakes: list[FakeServer]) -> None:
        await pool.update_weights(arena_offer("/a", 2))
        fakes[1].digest = "other"
        await fakes[1].die()
        await _until(lambda: pool.metrics()["pool.joining"] == 1.0)
        await asyncio.sleep(0.05)
        assert pool.metrics()["pool.serving"] == 1.0 and fakes[1].starts == 2
        assert not pool.needs_weights
        fakes[1].digest = "d"
        assert len(await pool.update_weights(arena_offer("/b", 3))) == 2

    _play(scenario)


def test_damage_that_every_server_finds_again_is_an_error_so_that_it_is_written_anew() -> None:
    offer = arena_offer("/a", 1, sent_R=(Sent(num_tensors=3, num_bytes=10, digest="d"),))

    async def scenario(pool: ServerPool, fakes: list[FakeServer]) -> None:
        for fake in fakes:
            fake.digest = "other"
        with pytest.raises(PoolError, match="no server accepts version 1"):
            await pool.update_weights(offer)
        with pytest.raises(PoolError, match="no server that came back accepts version 1"):
            await pool.update_weights(offer)
        for fake in fakes:
            fake.digest = "d"
        await pool.update_weights(offer)
        assert (await pool.generate((1,), SAMPLING)).version_first == 1

    _play(scenario)


def test_scores_come_from_every_server() -> None:
    async def scenario(pool: ServerPool, fakes: list[FakeServer]) -> None:
        assert await pool.score((3, 1, 2)) == [[-1.0, -2.0], [-1.0, -2.0]]

    _play(scenario)


def test_recompute_kv_resets_after_each_update_and_reads_the_answer() -> None:
    async def scenario(pool: ServerPool, fakes: list[FakeServer]) -> None:
        await pool.update_weights(arena_offer("/a", 1))
        assert fakes[0].resets == 1
        fakes[0].reset_works = False  # HTTP 200 all the same
        with pytest.raises(PoolError, match="could not reset its prefix cache"):
            await pool.update_weights(arena_offer("/a", 2))

    _play(scenario, servers=1, recompute_kv=True)


def test_a_pool_that_cannot_start_stops_what_it_started() -> None:
    async def scenario() -> None:
        fakes = [FakeServer("server-0"), FakeServer("server-1")]
        fakes[1].can_start = False
        with pytest.raises(PoolError, match="server-1 ended before it was ready"):
            async with ServerPool(fakes, places=1, recompute_kv=False, patience=PATIENCE):
                pytest.fail("entered")
        assert not any(fake.alive for fake in fakes)

    asyncio.run(scenario())


def test_a_cancelled_request_frees_its_place() -> None:
    async def scenario(pool: ServerPool, fakes: list[FakeServer]) -> None:
        fakes[0].gate.clear()
        stuck = [asyncio.create_task(pool.generate((1,), SAMPLING)) for _ in range(2)]
        await _until(lambda: fakes[0].busy == 2)
        for task in stuck:
            task.cancel()
        await asyncio.gather(*stuck, return_exceptions=True)
        assert pool.metrics()["pool.running"] == 0.0
        fakes[0].gate.set()
        await pool.generate((1,), SAMPLING)

    _play(scenario, servers=1)


def test_requests_are_answered_while_a_version_is_on_its_way() -> None:
    async def scenario(pool: ServerPool, fakes: list[FakeServer]) -> None:
        members = await pool.muster()
        assert [name.split("/")[0] for name in members] == ["server-0", "server-1"]
        fakes[0].arrived = False
        update = asyncio.create_task(send(pool, 3))
        await _until(lambda: bool(fakes[0].prepared and fakes[1].prepared))
        assert [fake.prepared for fake in fakes] == [[(3, 0)], [(3, 1)]]
        done = await pool.generate((1,), SAMPLING)
        assert (done.version_first, done.version_last) == (-1, -1)
        assert not update.done()
        fakes[0].arrived = True
        assert [ack.version for ack in await update] == [3, 3]
        assert (await pool.generate((1,), SAMPLING)).version_first == 3

    _play(scenario)


def test_a_server_that_comes_back_with_its_copy_serves_at_once() -> None:
    async def scenario(pool: ServerPool, fakes: list[FakeServer]) -> None:
        await send(pool, 1)
        first = await pool.muster()
        fakes[1].prepared.clear()
        await fakes[1].die()
        await _until(lambda: fakes[1].starts == 2 and len(pool.urls) == 2)
        assert fakes[1].loaded[-1] == ("", 1)
        second = await pool.muster()
        assert (second[0], len(second)) == (first[0], 2)
        assert second[1] != first[1]  # another life: whoever sends must meet it anew

    _play(scenario)


def test_a_server_without_a_copy_joins_with_the_next_version() -> None:
    async def scenario(pool: ServerPool, fakes: list[FakeServer]) -> None:
        await send(pool, 1)
        fakes[1].prepared.clear()
        fakes[1].has_copy = False
        await fakes[1].die()
        await _until(lambda: pool.metrics()["pool.joining"] == 1)
        assert len(pool.urls) == 1
        assert not pool.needs_weights
        acks = await send(pool, 2)
        assert [ack.server for ack in acks] == ["server-0", "server-1"]
        assert fakes[1].prepared == [(2, 1)]
        await _until(lambda: len(pool.urls) == 2)
        assert pool.metrics()["pool.joining"] == 0

    _play(scenario)


def test_the_only_server_without_a_copy_asks_for_the_weights_again() -> None:
    async def scenario(pool: ServerPool, fakes: list[FakeServer]) -> None:
        await send(pool, 1)
        fakes[0].prepared.clear()
        fakes[0].has_copy = False
        await fakes[0].die()
        await _until(lambda: pool.needs_weights)
        await send(pool, 1)
        assert (await pool.generate((1,), SAMPLING)).version_first == 1
        assert not pool.needs_weights

    _play(scenario, servers=1)


def test_members_that_are_gone_are_told_before_anything_is_sent() -> None:
    async def scenario(pool: ServerPool, fakes: list[FakeServer]) -> None:
        offer = Offer(version=2, receive="receive", take="take_received", arguments={}, members=("gone/1",))
        with pytest.raises(PoolError, match="gone before it was sent: gone/1"):
            await pool.receive(offer)
        assert len(pool.urls) == 2

    _play(scenario)


def test_a_sent_version_that_reaches_nobody_is_an_error_and_the_next_muster_waits_for_a_server() -> None:
    async def scenario(pool: ServerPool, fakes: list[FakeServer]) -> None:
        (fake,) = fakes
        await send(pool, 1)
        fake.refuses_weights = True
        with pytest.raises(PoolError, match="no server"):
            await send(pool, 2)
        fake.refuses_weights = False
        (ack,) = await send(pool, 2)
        assert ack.version == 2

    _play(scenario, servers=1)


def test_a_server_that_refused_a_version_answers_nothing_more() -> None:
    async def scenario(pool: ServerPool, fakes: list[FakeServer]) -> None:
        await pool.update_weights(arena_offer("/a", 1))
        fakes[1].update_gate.clear()
        update = asyncio.create_task(pool.update_weights(arena_offer("/a", 2)))
        await asyncio.sleep(0.02)
        waiting = [asyncio.create_task(pool.generate((n,), SAMPLING)) for n in range(4)]
        await asyncio.sleep(0.05)
        fakes[1].digest = "other"
        fakes[1].update_gate.set()
        await update
        done = await asyncio.gather(*waiting)
        assert {(one.server, one.version_first) for one in done} == {("server-0", 2)}

    _play(scenario)


def test_a_text_that_no_server_scores_is_an_error() -> None:
    async def scenario(pool: ServerPool, fakes: list[FakeServer]) -> None:
        fakes[0].breaks_scoring = True
        with pytest.raises(PoolError, match="no server scored a text in 3 attempts"):
            await pool.score((1, 2))

    _play(scenario, servers=1)


def test_the_only_server_that_reads_other_bytes_asks_for_the_weights_again() -> None:
    async def scenario(pool: ServerPool, fakes: list[FakeServer]) -> None:
        await pool.update_weights(arena_offer("/a", 1))
        fakes[0].digest = "other"
        await fakes[0].die()
        answer = asyncio.create_task(pool.generate((1,), SAMPLING))
        await _until(lambda: pool.needs_weights)
        assert not fakes[0].requests
        fakes[0].digest = "d"
        await pool.update_weights(arena_offer("/b", 1))
        assert (await answer).version_first == 1

    _play(scenario, servers=1)
