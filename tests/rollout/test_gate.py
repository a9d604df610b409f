"""Hostile bytes at a rollout server's door: no crash, no hang, no answer without the token."""

import asyncio
import contextlib
import multiprocessing
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import psutil
import pytest
import uvicorn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apriel_mcore import secret
from apriel_mcore.rollout.inside_vllm import gate
from apriel_mcore.rollout.inside_vllm.gate import MAX_BODY, Gate, Receive, Scope, Send

TOKEN = "t" * 32
AUTHORIZED = f"Authorization: Bearer {TOKEN}\r\n"


class Behind:
    """What the gate guards: counts who came through, and answers with the size of the body."""

    def __init__(self) -> None:
        self.came = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return
        self.came += 1
        size, more = 0, True
        while more:
            message = await receive()
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(size).encode()})


class Guarded:
    """A gate served by uvicorn, as vLLM serves it."""

    def __init__(self) -> None:
        self.behind = Behind()
        config = uvicorn.Config(Gate(self.behind), port=0, log_level="error", lifespan="off")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)

    def __enter__(self) -> "Guarded":
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)
        self.port = self._server.servers[0].sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(10)
        assert not self._thread.is_alive()

    def send(self, content: bytes, *, timeout_s: float = 5.0) -> bytes:
        """The first bytes of the answer; nothing when the connection was closed or stays silent."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout_s) as connection:
            connection.settimeout(timeout_s)
            with contextlib.suppress(OSError):
                connection.sendall(content)
                return connection.recv(4096)
        return b""

    def well(self) -> bool:
        """An honest request is answered at once."""
        return b"200" in self.send(f"GET /health HTTP/1.1\r\nHost: a\r\n{AUTHORIZED}\r\n".encode())[:20]


@pytest.fixture(scope="module")
def guarded() -> Iterator[Guarded]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(secret.SERVER_VARIABLE, TOKEN)
        with Guarded() as guarded:
            yield guarded


REQUEST = rb"(GET|POST) /[^ ]{0,50} HTTP/1\.[01]\r\n.{0,200}"
PATHS = ("/health", "/v1/completions", "/collective_rpc", "/update_weights", "/pause", "/../etc/passwd", "//")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "header",
    ["", "Authorization: Bearer wrong\r\n", "Authorization: \r\n", f"Authorization: Basic {TOKEN}\r\n"],
)
def test_no_route_answers_without_the_token(guarded: Guarded, path: str, header: str) -> None:
    came = guarded.behind.came
    answer = guarded.send(f"POST {path} HTTP/1.1\r\nHost: a\r\n{header}Content-Length: 0\r\n\r\n".encode())
    assert b" 401 " in answer[:20]
    assert guarded.behind.came == came
    assert guarded.well()


def test_answers_are_signed_with_the_life_of_the_process_refusals_are_not(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    def signature(one: Guarded, header: str = AUTHORIZED) -> list[bytes]:
        lines = one.send(f"GET /health HTTP/1.1\r\nHost: a\r\n{header}\r\n".encode()).split(b"\r\n")
        return [line for line in lines if line.startswith(secret.LIFE_HEADER.encode())]

    monkeypatch.setenv(secret.SERVER_VARIABLE, TOKEN)
    with Guarded() as again:
        assert signature(again) and signature(again) != signature(guarded)
    assert signature(guarded) == signature(guarded)
    assert signature(guarded, header="") == []


def test_the_processes_that_serve_one_port_are_one_life() -> None:
    context = multiprocessing.get_context("spawn")  # as vLLM starts the processes of --api-server-count
    with ProcessPoolExecutor(1, context) as one, ProcessPoolExecutor(1, context) as other:
        assert one.submit(gate.life).result() == other.submit(gate.life).result() != gate.life()


@pytest.mark.parametrize(
    "size",
    [f"Content-Length: {MAX_BODY + 1}\r\n", "Transfer-Encoding: chunked\r\n"],
    ids=["large", "chunked"],
)
def test_an_oversized_body_is_refused_unread(guarded: Guarded, size: str) -> None:
    came = guarded.behind.came
    answer = guarded.send(f"POST /v1/completions HTTP/1.1\r\nHost: a\r\n{AUTHORIZED}{size}\r\n".encode())
    assert b" 413 " in answer[:20]
    assert guarded.behind.came == came


def test_slow_ones_hold_up_nobody_and_leave_nothing(guarded: Guarded) -> None:
    before = psutil.Process().num_fds()
    slow = [socket.create_connection(("127.0.0.1", guarded.port)) for _ in range(100)]
    for connection in slow:
        connection.sendall(b"POST /collective_rpc HTTP/1.1\r\nHo")
    start = time.monotonic()
    assert guarded.well()
    assert time.monotonic() - start < 2.0
    for connection in slow:
        connection.close()
    deadline = time.monotonic() + 5.0
    while psutil.Process().num_fds() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert psutil.Process().num_fds() <= before


def test_a_head_without_end_is_cut_off_before_it_fills_the_memory(guarded: Guarded) -> None:
    before = psutil.Process().memory_info().rss
    with socket.create_connection(("127.0.0.1", guarded.port), timeout=5.0) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n")
        sent = 0
        with pytest.raises(OSError):
            while sent < 64 << 20:
                connection.sendall(b"X: " + b"y" * 65_000 + b"\r\n")
                sent += 65_000
    assert sent < 16 << 20  # what the system had taken before the connection was closed
    assert psutil.Process().memory_info().rss - before < 16 << 20
    assert guarded.well()


@pytest.mark.parametrize("beginning", [b"", b"\r\n", b"POST /collective_rpc HTTP/1.1\r\nHo"])
def test_a_head_that_does_not_end_gives_its_connection_back(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch, beginning: bytes
) -> None:
    monkeypatch.setattr(gate.door, "HEAD_S", 0.3)
    with socket.create_connection(("127.0.0.1", guarded.port), timeout=5.0) as connection:
        connection.sendall(beginning)
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(100) == b""  # closed, not timed out
    slow_second = f"GET /health HTTP/1.1\r\nHost: a\r\n{AUTHORIZED}\r\n".encode()
    with socket.create_connection(("127.0.0.1", guarded.port), timeout=5.0) as connection:
        connection.sendall(slow_second)
        assert b"200" in connection.recv(4096)
        connection.sendall(b"GET /hea")
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(100) == b""


def test_a_body_may_take_its_time(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate.door, "HEAD_S", 0.2)
    size = 1 << 20
    with socket.create_connection(("127.0.0.1", guarded.port), timeout=5.0) as connection:
        head = f"POST /v1/completions HTTP/1.1\r\nHost: a\r\n{AUTHORIZED}Content-Length: {size}\r\n\r\n"
        connection.sendall(head.encode() + b"x" * (size - 1))
        time.sleep(0.5)
        connection.sendall(b"x")
        answer = b""
        while str(size).encode() not in answer and (more := connection.recv(4096)):
            answer += more
        assert str(size).encode() in answer


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(st.binary(max_size=2000), st.from_regex(rb"(GET|POST) /[^ ]{0,50} HTTP/1\.[01]\r\n.{0,200}"))
)
def test_any_bytes_reach_nothing(guarded: Guarded, content: bytes) -> None:
    came = guarded.behind.came
    guarded.send(content, timeout_s=0.05)
    assert guarded.behind.came == came
    assert guarded.well()
    guarded.behind.came = came


def test_a_websocket_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(secret.SERVER_VARIABLE, TOKEN)
    sent: list[dict] = []

    async def send(message: dict) -> None:
        sent.append(message)

    asyncio.run(Gate(Behind())({"type": "websocket", "headers": []}, None, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]
