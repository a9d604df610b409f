"""Hostile bytes at the judges' door and on their wire: no crash, no hang, no leak."""

import asyncio
import contextlib
import time

import msgspec
import psutil
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from apriel_mcore import http_limits
from apriel_mcore.config.schema import RemoteVerify, Verify
from apriel_mcore.errors import VerifierError
from apriel_mcore.types import Problem
from apriel_mcore.verify import wire
from apriel_mcore.verify.grade import VerifierPool
from apriel_mcore.verify.process import WorkerDied, WorkerProcess
from apriel_mcore.verify.remote import RemoteVerifiers
from apriel_mcore.verify.service import Service

TOKEN = "t" * 32
PROBLEM = Problem(id="p", domain="d", source="s", messages=(), verifier="math", reference={}, split_key="p")
HONEST = b"GET /health HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " + TOKEN.encode() + b"\r\n\r\n"
HOSTILE = [
    b"",
    b"\x00" * 4096,
    b"GET " + b"/" * 100_000 + b" HTTP/1.1\r\n\r\n",
    b"GET /health HTTP/1.1\r\n" + b"X: " + b"y" * 100_000 + b"\r\n\r\n",
    b"GET /../../etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " + b"t" * 31 + b"\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer \xff\xfe\r\n\r\n",
    b"POST /judge HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n",
    b"POST /judge HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    b"POST /judge HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
    b"POST /judge HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
]


async def send(port: int, content: bytes) -> bytes:
    """What comes back within a moment."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.suppress(OSError, TimeoutError):
        writer.write(content)
        async with asyncio.timeout(0.3):
            return await reader.read(4096)
    writer.close()
    return b""


def test_whatever_comes_the_next_honest_request_is_answered() -> None:
    async def play() -> None:
        pool = VerifierPool(Verify(workers=1))  # no worker is started before the first job
        runner = web.AppRunner(Service(pool, token=TOKEN, max_waiting=1).application(), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        before = psutil.Process().num_fds()
        for content in HOSTILE:
            answer = await send(port, content)
            assert b" 200 " not in answer[:20], content[:60]
            assert b" 200 " in (await send(port, HONEST))[:20]
        slow = [await asyncio.open_connection("127.0.0.1", port) for _ in range(100)]
        for _, writer in slow:
            writer.write(b"POST /judge HTTP/1.1\r\nHo")
        start = time.monotonic()
        assert b" 200 " in (await send(port, HONEST))[:20]
        assert time.monotonic() - start < 2.0
        for _, writer in slow:
            writer.close()
        await asyncio.sleep(0.2)
        await runner.cleanup()
        assert psutil.Process().num_fds() <= before

    asyncio.run(play())


def test_who_says_nothing_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_limits, "SILENCE_S", 0.3)

    async def play() -> None:
        application = Service(VerifierPool(Verify(workers=1)), token=TOKEN, max_waiting=1).application()
        runner = http_limits.runner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        for beginning in (b"", b"POST /judge HTTP/1.1\r\nHo", HONEST, HONEST + b"GET /he"):
            reader, writer = await asyncio.open_connection("127.0.0.1", runner.addresses[0][1])
            writer.write(beginning)
            async with asyncio.timeout(5.0):
                answer = await reader.read()  # to its end: the service closes
            assert answer.startswith(b"HTTP/1.1 200") if beginning.startswith(HONEST) else not answer
            writer.close()
        await runner.cleanup()

    asyncio.run(play())


def test_a_service_that_floods_its_asker_is_unreachable() -> None:
    async def flood(_: web.Request) -> web.StreamResponse:
        return web.Response(body=b" " * (wire.MAX_REPLY + 1))

    async def play() -> None:
        application = web.Application()
        application.router.add_post("/judge", flood)
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        config = RemoteVerify(urls=[f"http://127.0.0.1:{runner.addresses[0][1]}"], token_file="unused")
        async with RemoteVerifiers(config, token=TOKEN) as judge:
            with pytest.raises(VerifierError, match=f"more than {wire.MAX_REPLY} bytes"):
                await judge.grade(PROBLEM, "12")
        await runner.cleanup()

    asyncio.run(play())


@settings(deadline=None)
@given(st.binary(max_size=500))
def test_bytes_are_a_record_or_an_error(content: bytes) -> None:
    for decode in (wire.decode_request, wire.decode_reply, wire.decode_asked, wire.decode_answer):
        with contextlib.suppress(msgspec.MsgspecError):
            decode(content)


@pytest.mark.parametrize("said", ["b'{'", "b'[]'", "b'\\xff' * 9", "b''"])
def test_a_judge_that_talks_nonsense_costs_the_rollout(said: str) -> None:
    program = f"""
import socket, sys, time
said = {said}
c = socket.socket(fileno=int(sys.argv[1]))
c.send(len(said).to_bytes(4, "big") + said)
time.sleep(60)
"""

    async def play() -> None:
        async with VerifierPool(Verify(workers=1), program=("python3", "-c", program)) as pool:
            with pytest.raises(VerifierError, match="worker said something"):
                await pool.grade(PROBLEM, "12")

    asyncio.run(play())


def test_a_judge_that_the_system_cannot_start_costs_the_rollout() -> None:
    async def play() -> None:
        async with VerifierPool(Verify(workers=1), program=("/nowhere/python",)) as pool:
            with pytest.raises(VerifierError, match="cannot be started"):
                await pool.grade(PROBLEM, "12")

    asyncio.run(play())


def test_a_judge_that_floods_is_ended_before_its_flood_is_read() -> None:
    flood = (
        "import socket, sys, time; c = socket.socket(fileno=int(sys.argv[1])); "
        "c.send(b'\\xff' * 64); time.sleep(60)"
    )

    async def play() -> None:
        worker = await WorkerProcess.start(Verify(), ("python3", "-c", flood), nice=0)
        with pytest.raises(WorkerDied, match="larger than"):
            await worker.ask(wire.Load("math"), 10.0)
        assert not worker.is_alive

    asyncio.run(play())
