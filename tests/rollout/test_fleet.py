"""Servers come and go while the pool serves; a slow or broken one holds up nobody."""

import asyncio
import time
from pathlib import Path

import msgspec
import pytest

from apriel_mcore.errors import InputError, PoolError
from apriel_mcore.rollout import orders
from apriel_mcore.rollout.keeper import Patience
from apriel_mcore.rollout.pool import ServerPool
from apriel_mcore.seams import Sent, arena_offer
from tests.rollout.test_pool import PATIENCE, SAMPLING, FakeServer, _play, _until


def test_an_added_server_gets_the_current_weights_before_it_serves() -> None:
    async def scenario(pool: ServerPool, fakes: list[FakeServer]) -> None:
        await pool.update_weights(arena_offer("/a", 3))
        late = FakeServer("late")
        await pool.fleet.add(late)
        assert late.loaded == [("/a", 3)]
        fakes[0].gate.clear()
        answers = [asyncio.create_task(pool.generate([number], SAMPLING)) for number in range(4)]
        await _until(lambda: len(late.requests) == 2)
        fakes[0].gate.set()
        assert {answer.version_first for answer in await asyncio.gather(*answers)} == {3}
        with pytest.raises(InputError, match="late is in the pool"):
            await pool.fleet.add(FakeServer("late"))
        assert [ack.server for ack in await pool.update_weights(arena_offer("/b", 4))] == ["server-0", "late"]
        await late.stop()

    _play(scenario, servers=1)


def test_a_server_that_does_not_start_is_not_added() -> None:
    async def scenario(pool: ServerPool, fakes: list[FakeServer]) -> None:
        broken = FakeServer("broken")
        broken.can_start = False
        with pytest.raises(PoolError, match="broken does not serve"):
            await pool.fleet.add(broken)
        assert broken.forgotten == 1
        assert list(pool.states) == ["server-0"]

    _play(scenario, servers=1)


def test_a_drained_server_answers_what_it_was_asked_and_is_retired() -> None:
    async def scenario(pool: ServerPool, fakes: list[FakeServer]) -> None:
        fakes[0].gate.clear()
        running = [asyncio.create_task(pool.generate([1], SAMPLING)) for _ in range(2)]
        await _until(lambda: len(fakes[0].requests) == 2)
        draining = asyncio.create_task(pool.fleet.drain("server-0"))
        await _until(lambda: pool.states["server-0"] == "draining")
        later = [await pool.generate([1], SAMPLING) for _ in range(3)]
        assert {answer.server for answer in later} == {"server-1"}
        acks = await pool.update_weights(arena_offer("/a", 1))
        assert {ack.server for ack in acks} == {"server-0", "server-1"}, "what it still answers is stamped"
        assert not draining.done()
        fakes[0].gate.set()
        assert {(await answer).server for answer in running} == {"server-0"}
        await draining
        assert pool.states == {"server-0": "retired", "server-1": "serving"}
        assert fakes[0].starts == 1 and not fakes[0].alive
        with pytest.raises(InputError, match="last server"):
            await pool.fleet.drain("server-1")
        with pytest.raises(InputError, match="no server of that name"):
            await pool.fleet.drain("server-0")
        await pool.fleet.add(fakes[0])  # a retired one may come back
        assert pool.states["server-0"] == "serving"
        fakes[0].forgotten = 0

    _play(scenario)


def test_a_server_that_dies_while_it_is_drained_is_retired() -> None:
    async def scenario(pool: ServerPool, fakes: list[FakeServer]) -> None:
        fakes[0].gate.clear()
        running = asyncio.create_task(pool.generate([1], SAMPLING))
        await _until(lambda: len(fakes[0].requests) == 1)
        draining = asyncio.create_task(pool.fleet.drain("server-0"))
        await _until(lambda: pool.states["server-0"] == "draining")
        fakes[0].gate.set()
        await fakes[0].die()
        await draining
        assert pool.states["server-0"] == "retired"
        await running

    _play(scenario)


def test_a_server_that_hangs_over_a_version_holds_up_nobody() -> None:
    async def scenario() -> None:
        fakes = [FakeServer("quick"), FakeServer("hung")]
        patience = msgspec.structs.replace(PATIENCE, publish_s=0.2)
        async with ServerPool(fakes, places=2, recompute_kv=False, patience=patience) as pool:
            fakes[1].update_gate.clear()
            start = time.monotonic()
            acks = await pool.update_weights(arena_offer("/a", 1))
            assert time.monotonic() - start < 2.0
            assert [ack.server for ack in acks] == ["quick"]
            assert (await pool.generate([1], SAMPLING)).version_first == 1
            fakes[1].update_gate.set()
            await _until(lambda: pool.states["hung"] == "serving")
            assert fakes[1].loaded[-1] == ("/a", 1)

    asyncio.run(asyncio.wait_for(scenario(), 20.0))


def test_a_server_that_read_other_bytes_than_were_sent_is_out_until_it_reads_them() -> None:
    async def scenario(pool: ServerPool, fakes: list[FakeServer]) -> None:
        sent = (Sent(num_tensors=3, num_bytes=10, digest="d"),)
        fakes[1].digest = "corrupted"
        acks = await pool.update_weights(arena_offer("/a", 1, sent_R=sent))
        assert [ack.server for ack in acks] == ["server-0"]
        assert len(pool.urls) == 1
        fakes[1].digest = "d"
        await _until(lambda: len(pool.urls) == 2)
        for fake in fakes:
            fake.digest = "corrupted"
        with pytest.raises(PoolError, match="corrupted, sent was d"):
            await pool.update_weights(arena_offer("/b", 2, sent_R=sent))
        assert pool.urls == [], "nobody answers with weights that nobody sent"

    _play(scenario)


def test_every_server_is_counted() -> None:
    async def scenario(pool: ServerPool, fakes: list[FakeServer]) -> None:
        fakes[0].fail_next = 1
        for number in range(4):
            await pool.generate([number], SAMPLING)
        numbers = pool.metrics()
        requests = [numbers[f"pool.server-{i}.requests"] for i in range(2)]
        assert sum(requests) == 4 and numbers["pool.server-0.failures"] == 1
        assert numbers["pool.server-0.tokens"] == 2 * requests[0]
        assert numbers["pool.server-1.running"] == 0

    _play(scenario)


def test_orders_by_files_are_carried_out_and_answered(tmp_path: Path) -> None:
    folder = tmp_path / "pool"

    async def scenario(pool: ServerPool, fakes: list[FakeServer]) -> None:
        made: list[FakeServer] = []

        def make(index: int) -> FakeServer:
            made.append(FakeServer(f"server-{index}"))
            return made[-1]

        folder.mkdir()
        (folder / "old.order.json").write_text('{"type": "drain", "name": "server-0"}')
        desk = asyncio.create_task(orders.OrderDesk(folder, pool, make_local=make, remote_token=str).serve())
        await _until(lambda: (folder / "servers.json").exists())
        added = await asyncio.to_thread(orders.give, folder, orders.AddLocal(), timeout_s=10.0)
        assert added.exit_code == 0 and added.message.startswith("server-1 serves at http://")
        drained = await asyncio.to_thread(orders.give, folder, orders.Drain("server-0"), timeout_s=10.0)
        assert "retired" in drained.message
        refused = await asyncio.to_thread(orders.give, folder, orders.Drain("server-1"), timeout_s=10.0)
        assert refused.exit_code == 2 and "last server" in refused.message
        (folder / "x.order.json").write_bytes(b'{"type": "shell", "command": "rm"}' + b" " * 100_000)
        await _until(lambda: (folder / "x.reply.json").exists())
        assert "not an order" in (folder / "x.reply.json").read_text()
        shown = {server.name: server.state for server in orders.listing(folder)}
        assert shown == {"server-0": "retired", "server-1": "serving"}
        desk.cancel()

    _play(scenario, servers=1)
    with pytest.raises(InputError, match="not there"):
        orders.give(tmp_path, orders.AddLocal(), timeout_s=1.0)


def test_what_cannot_be_read_among_the_orders_stops_no_other_order(tmp_path: Path) -> None:
    folder = tmp_path / "pool"

    async def scenario(pool: ServerPool, fakes: list[FakeServer]) -> None:
        desk = orders.OrderDesk(folder, pool, make_local=FakeServer, remote_token=str)  # type: ignore[arg-type]
        serving = asyncio.create_task(desk.serve())
        await _until(lambda: (folder / "servers.json").exists())
        (folder / "a.order.json").mkdir()
        (folder / "b.order.json").symlink_to("nowhere")
        refused = await asyncio.to_thread(orders.give, folder, orders.Drain("server-0"), timeout_s=5.0)
        assert "last server" in refused.message
        assert not serving.done()
        serving.cancel()

    _play(scenario, servers=1)


def test_a_list_of_a_run_that_ended_is_said(tmp_path: Path) -> None:
    (tmp_path / "servers.json").write_bytes(
        msgspec.json.encode(orders.Listing(time=time.time() - 60, servers=[]))
    )
    with pytest.raises(InputError, match="does not go on"):
        orders.listing(tmp_path)


@pytest.mark.parametrize(
    "url",
    [
        "server",
        "https://a:1",
        "http://a",
        "http://a:x",
        "http://a:1/b",
        "file:///etc",
        "http://me:key@a:1",
        "http://a:1?key=k",
        "http://a:1#k",
    ],
)
def test_only_addresses_of_servers_are_added(url: str) -> None:
    with pytest.raises(InputError, match="http://HOST:PORT"):
        orders.checked_url(url)
    assert orders.checked_url("http://10.0.0.1:8000") == "http://10.0.0.1:8000"
    assert Patience(start_timeout_s=1.0).publish_s == 120.0
