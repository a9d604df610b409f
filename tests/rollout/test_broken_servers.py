"""A server that is up but wrong: restarted unseen, stuck, or talking nonsense. It leaves; the rest go on."""

import asyncio
import time
from typing import Any

import aiohttp
import msgspec
import pytest

from apriel_mcore.errors import PoolError
from apriel_mcore.rollout.pool import ServerPool
from apriel_mcore.seams import arena_offer
from tests.rollout.test_pool import PATIENCE, SAMPLING, FakeServer, _play, _until, received_offer, send

HURRIED = msgspec.structs.replace(PATIENCE, publish_s=0.3)


def test_a_server_that_somebody_started_again_unseen_answers_nothing_before_it_has_the_weights() -> None:
    async def scenario(pool: ServerPool, fakes: list[FakeServer]) -> None:
        (fake,) = fakes
        await pool.update_weights(arena_offer("/a", 4))
        fake.gate.clear()
        asked = asyncio.create_task(pool.generate((1,), SAMPLING))
        await _until(lambda: fake.busy == 1)
        fake.life = "second"  # between two looks: it answers as before, with the checkpoint's weights
        fake.gate.set()
        assert (await asked).version_first == 4
        assert fake.loaded == [("/a", 4), ("/a", 4)]
        assert len(fake.requests) == 2, "what the new life answered without the weights was taken"

    _play(scenario, servers=1)


def test_an_idle_server_that_was_started_again_unseen_gets_the_weights() -> None:
    async def scenario(pool: ServerPool, fakes: list[FakeServer]) -> None:
        await pool.update_weights(arena_offer("/a", 4))
        fakes[1].life = "second"
        await _until(lambda: fakes[1].loaded == [("/a", 4), ("/a", 4)])
        await _until(lambda: len(pool.urls) == 2)
        assert fakes[0].loaded == [("/a", 4)]

    _play(scenario)


def test_a_returning_server_that_hangs_over_the_weights_does_not_hold_up_a_version() -> None:
    async def scenario() -> None:
        fakes = [FakeServer("well"), FakeServer("hung")]
        patience = msgspec.structs.replace(PATIENCE, publish_s=1.0)
        async with ServerPool(fakes, places=2, recompute_kv=False, patience=patience) as pool:
            await pool.update_weights(arena_offer("/a", 1))
            fakes[1].update_gate.clear()
            await fakes[1].die()
            await _until(lambda: fakes[1].starts == 2 and pool.states["hung"] == "stale")
            await asyncio.sleep(0.05)
            start = time.monotonic()
            acks = await pool.update_weights(arena_offer("/b", 2))
            assert time.monotonic() - start < 0.5, "it waited for a server that does not serve"
            assert [ack.server for ack in acks] == ["well"]
            fakes[1].update_gate.set()
            await _until(lambda: len(pool.urls) == 2)
            assert fakes[1].loaded[-1] == ("/b", 2), "what it took meanwhile is no longer current"
            assert {(await pool.generate((n,), SAMPLING)).version_first for n in range(4)} == {2}

    asyncio.run(asyncio.wait_for(scenario(), 20.0))


def test_a_returning_server_that_hangs_over_the_weights_is_started_again() -> None:
    async def scenario() -> None:
        fakes = [FakeServer("well"), FakeServer("hung")]
        async with ServerPool(fakes, places=2, recompute_kv=False, patience=HURRIED) as pool:
            await pool.update_weights(arena_offer("/a", 1))
            fakes[1].update_gate.clear()
            await fakes[1].die()
            await _until(lambda: fakes[1].starts == 3)
            fakes[1].update_gate.set()
            await _until(lambda: len(pool.urls) == 2)

    asyncio.run(asyncio.wait_for(scenario(), 10.0))


@pytest.mark.parametrize("stuck_at", ["receive", "has_arrived"])
def test_a_server_that_hangs_before_it_receives_is_parted_with_in_time(stuck_at: str) -> None:
    async def scenario() -> None:
        fakes = [FakeServer("well"), FakeServer("hung")]
        async with ServerPool(fakes, places=2, recompute_kv=False, patience=HURRIED) as pool:
            fakes[1].stuck_at = stuck_at
            start = time.monotonic()
            if stuck_at == "receive":
                with pytest.raises(PoolError, match="hung has not begun to receive version 1"):
                    await send(pool, 1)
            acks = await send(pool, 1)
            assert time.monotonic() - start < 2.0
            assert [ack.server for ack in acks] == ["well"]
            fakes[1].stuck_at = ""

    asyncio.run(asyncio.wait_for(scenario(), 20.0))


def test_a_probe_that_a_server_never_answers_costs_that_server_not_the_run() -> None:
    async def scenario() -> None:
        fakes = [FakeServer("well"), FakeServer("hung")]
        async with ServerPool(fakes, places=2, recompute_kv=False, patience=HURRIED) as pool:
            fakes[1].hangs_scoring = True  # its API answers /health, its engine is stopped
            assert await pool.score((3, 1, 2)) == [[-1.0, -2.0]]
            assert pool.metrics()["pool.retired"] == 1.0
            fakes[1].hangs_scoring = False

    asyncio.run(asyncio.wait_for(scenario(), 20.0))


@pytest.mark.parametrize("nonsense", [b"\xff\x00", b"[]", b'{"choices": []}'])
def test_a_server_that_talks_nonsense_leaves_and_its_requests_go_elsewhere(nonsense: bytes) -> None:
    async def scenario(pool: ServerPool, fakes: list[FakeServer]) -> None:
        fakes[0].nonsense = nonsense
        answers = await asyncio.gather(*(pool.generate((n,), SAMPLING) for n in range(8)))
        assert {answer.server for answer in answers} == {"server-1"}
        assert pool.metrics()["pool.retired"] >= 1.0
        fakes[0].nonsense = b""

    _play(scenario)


@pytest.mark.parametrize("status", [401, 404, 500, 503])
def test_a_healthy_looking_server_that_fails_every_request_is_no_sink_for_them(status: int) -> None:
    async def scenario(pool: ServerPool, fakes: list[FakeServer]) -> None:
        fakes[0].status = status
        answers = await asyncio.gather(*(pool.generate((n,), SAMPLING) for n in range(16)))
        assert {answer.server for answer in answers} == {"server-1"}
        fakes[0].status = 200

    _play(scenario)


def test_requests_that_fail_together_count_as_one_failure() -> None:
    async def scenario(pool: ServerPool, fakes: list[FakeServer]) -> None:
        fakes[0].fail_next = 8
        answers = await asyncio.gather(*(pool.generate((n,), SAMPLING) for n in range(8)))
        assert len(answers) == 8
        assert pool.metrics()["pool.retired"] == 0.0

    _play(scenario, servers=1, places=8)


def test_nonsense_about_weights_costs_the_server_not_the_version() -> None:
    async def scenario(pool: ServerPool, fakes: list[FakeServer]) -> None:
        fakes[1].digest = 7  # type: ignore[assignment]
        acks = await pool.update_weights(arena_offer("/a", 2))
        assert [ack.server for ack in acks] == ["server-0"]
        fakes[1].digest = "d"

    _play(scenario)


def test_a_start_that_the_system_refuses_is_tried_again() -> None:
    async def scenario(pool: ServerPool, fakes: list[FakeServer]) -> None:
        fakes[0].start_errors = [OSError(12, "Cannot allocate memory")]
        await fakes[0].die()
        await pool.generate((1,), SAMPLING)
        assert fakes[0].starts == 3

    _play(scenario, servers=1)


def test_a_server_that_fails_every_score_is_no_sink_for_them() -> None:
    async def scenario(pool: ServerPool, fakes: list[FakeServer]) -> None:
        fakes[0].breaks_scoring = True  # and says that it is well
        assert await pool.logprobs((3, 1, 2)) == [-1.0, -2.0]
        assert pool.metrics()["pool.retired"] == 1.0
        fakes[0].breaks_scoring = False

    _play(scenario)


def test_scores_that_fail_now_and_then_cost_no_server() -> None:
    async def scenario(pool: ServerPool, fakes: list[FakeServer]) -> None:
        for _ in range(4):
            fakes[0].breaks_scoring = True
            await pool.score((3, 1, 2))
            fakes[0].breaks_scoring = False
            await pool.score((3, 1, 2))
        assert pool.metrics()["pool.retired"] == 0.0

    _play(scenario)


def test_who_comes_while_a_version_is_sent_waits_for_the_next_one() -> None:
    async def scenario(pool: ServerPool, fakes: list[FakeServer]) -> None:
        await send(pool, 1)
        fakes[1].prepared.clear()
        fakes[1].has_copy = False
        await fakes[1].die()
        await _until(lambda: len(pool.urls) == 1)
        offer = received_offer(2, await pool.muster())
        await pool.receive(offer)
        await _until(lambda: pool.metrics()["pool.joining"] == 1)
        assert [ack.server for ack in await pool.update_weights(offer)] == ["server-0"]
        assert [ack.server for ack in await send(pool, 3)] == ["server-0", "server-1"]
        assert fakes[1].starts == 2, "it was started again for coming at the wrong time"

    _play(scenario)


def test_a_versions_deadline_is_the_only_one(monkeypatch: pytest.MonkeyPatch) -> None:
    totals: dict[str, float | None] = {}
    post = aiohttp.ClientSession.post

    def noted(self: aiohttp.ClientSession, path: str, **options: Any) -> Any:
        totals[path.partition("?")[0]] = options.get("timeout", self.timeout).total
        return post(self, path, **options)

    monkeypatch.setattr(aiohttp.ClientSession, "post", noted)

    async def scenario(pool: ServerPool, _: list[FakeServer]) -> None:
        await send(pool, 1)

    _play(scenario, recompute_kv=True)
    assert totals == dict.fromkeys(("/collective_rpc", "/update_weight_version", "/reset_prefix_cache"))
