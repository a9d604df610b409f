"""Places, the line, siblings together, and what happens to waiters when servers go."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apriel_mcore.rollout.router import Router


async def _settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_siblings_share_a_server_and_strangers_go_to_the_least_loaded() -> None:
    async def scenario() -> None:
        router: Router[str] = Router(4)
        router.add("a")
        router.add("b")
        async with router.place("p") as first, router.place("p") as sibling, router.place("q") as stranger:
            assert first == sibling
            assert stranger != first

    asyncio.run(scenario())


def test_a_sibling_does_not_wait_for_its_full_home() -> None:
    async def scenario() -> None:
        router: Router[str] = Router(1)
        router.add("a")
        router.add("b")
        async with router.place("p") as first, router.place("p") as sibling:
            assert {first, sibling} == {"a", "b"}

    asyncio.run(scenario())


def test_a_key_is_forgotten_with_its_last_request() -> None:
    async def scenario() -> None:
        router: Router[str] = Router(2)
        router.add("a")
        async with router.place("p"):
            pass
        router.add("b")
        async with router.place("x") as busy, router.place("p") as again:
            assert busy != again  # the least loaded, not the old home "a"

    asyncio.run(scenario())


def test_the_line_is_first_come_first_served_and_bounded_by_places() -> None:
    async def scenario() -> None:
        router: Router[str] = Router(2)
        router.add("a")
        order: list[int] = []
        leave = asyncio.Event()

        async def ask(index: int) -> None:
            async with router.place(index):
                order.append(index)
                await leave.wait()

        tasks = [asyncio.create_task(ask(index)) for index in range(5)]
        await _settle()
        assert (order, router.num_running, router.num_waiting) == ([0, 1], 2, 3)
        leave.set()
        await asyncio.gather(*tasks)
        assert order == [0, 1, 2, 3, 4]
        assert router.num_running == 0

    asyncio.run(scenario())


def test_waiters_are_served_by_a_server_that_joins_and_leavers_of_a_dead_one_do_no_harm() -> None:
    async def scenario() -> None:
        router: Router[str] = Router(1)
        router.add("a")
        async with router.place("p"):
            waiting = asyncio.create_task(_name_of_place(router, "q"))
            await _settle()
            router.remove("a")
            assert not waiting.done()
            router.add("b")
            assert await waiting == "b"
        assert (router.servers, router.num_running) == (["b"], 0)

    asyncio.run(scenario())


def test_fail_reaches_those_in_line_and_those_who_come_later() -> None:
    async def scenario() -> None:
        router: Router[str] = Router(1)
        waiting = asyncio.create_task(_name_of_place(router, "p"))
        await _settle()
        router.fail(RuntimeError("nobody left"))
        for attempt in (waiting, _name_of_place(router, "q"), router.until_serving()):
            with pytest.raises(RuntimeError, match="nobody left"):
                await attempt

    asyncio.run(scenario())


@given(
    places=st.integers(1, 3),
    num_servers=st.integers(1, 3),
    cancelled=st.lists(st.booleans(), min_size=1, max_size=20),
)
def test_cancelling_at_any_moment_loses_no_place(
    places: int, num_servers: int, cancelled: list[bool]
) -> None:
    async def scenario() -> None:
        router: Router[int] = Router(places)
        for server in range(num_servers):
            router.add(server)
        tasks = [asyncio.create_task(_name_of_place(router, index % 3)) for index in range(len(cancelled))]
        for task, cancel in zip(tasks, cancelled, strict=True):
            await asyncio.sleep(0)
            if cancel:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (router.num_running, router.num_waiting) == (0, 0)

    asyncio.run(scenario())


async def _name_of_place[Server](router: Router[Server], key: object) -> Server:
    async with router.place(key) as server:
        await asyncio.sleep(0)
        return server
