"""Judges behind HTTP: the same verdicts, only with the token, and other services when one is lost."""

import asyncio
import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from apriel_mcore.config.schema import RemoteVerify, Verify
from apriel_mcore.errors import InputError, Starved, VerifierError
from apriel_mcore.types import Problem
from apriel_mcore.verify import remote, wire
from apriel_mcore.verify.grade import VerifierPool
from apriel_mcore.verify.remote import RemoteVerifiers
from apriel_mcore.verify.service import MAX_BODY, Service, read_token

HOSTILE = (sys.executable, str(Path(__file__).with_name("hostile_worker.py")))
TOKEN = "a-token-of-sixteen"
GOLD = {"answer": "12", "format": "number"}


def problem(verifier: str, reference: dict[str, Any]) -> Problem:
    return Problem(
        id="p", domain="d", source="s", messages=(), verifier=verifier, reference=reference, split_key="p"
    )


def hostile(do: str) -> Problem:
    return problem("hostile", {"do": do})


@contextlib.asynccontextmanager
async def service(
    *, max_waiting: int = 64, deadline_s: float = 10.0
) -> AsyncIterator[tuple[str, web.AppRunner]]:
    config = Verify(workers=1, deadline_s=deadline_s, code_cpu_s=0.2)
    async with VerifierPool(config, program=HOSTILE) as pool:
        runner = web.AppRunner(Service(pool, token=TOKEN, max_waiting=max_waiting).application())
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", runner
        await runner.cleanup()


def judged[T](
    story: Callable[[RemoteVerifiers, list[web.AppRunner]], Awaitable[T]],
    *,
    num_services: int = 1,
    token: str = TOKEN,
    max_waiting: int = 64,
    deadline_s: float = 10.0,
) -> T:
    async def run() -> T:
        async with contextlib.AsyncExitStack() as stack:
            services = [
                await stack.enter_async_context(service(max_waiting=max_waiting, deadline_s=deadline_s))
                for _ in range(num_services)
            ]
            config = RemoteVerify(urls=[url for url, _ in services], token_file="unused", deadline_s=20.0)
            judge = await stack.enter_async_context(RemoteVerifiers(config, token=token))
            return await story(judge, [runner for _, runner in services])

    return asyncio.run(run())


def test_the_same_verdicts_from_elsewhere() -> None:
    async def story(judge: RemoteVerifiers, _: list[web.AppRunner]) -> None:
        assert (await judge.grade(problem("math", GOLD), "12")).success
        assert (await judge.grade(problem("math", GOLD), "13")).status == "wrong"
        await judge.self_check(problem("math", GOLD))
        with pytest.raises(InputError, match="answer"):
            await judge.self_check(problem("math", {**GOLD, "answer": ""}))
        counts = judge.counts()["d"]
        assert (counts.graded, counts.lost, counts.unreachable) == (2, 0, 0)
        assert judge.metrics()["d.p99_s"] > 0

    judged(story)


def test_a_broken_judge_is_no_verdict_from_elsewhere_either() -> None:
    async def story(judge: RemoteVerifiers, _: list[web.AppRunner]) -> None:
        with pytest.raises(VerifierError, match="broken judge"):
            await judge.grade(hostile("raise"), "")
        with pytest.raises(VerifierError, match="deadline"):
            await judge.grade(hostile("hang"), "")
        with pytest.raises(Starved, match="busy"):
            await judge.grade(hostile("starve"), "")
        counts = judge.counts()["d"]
        assert (counts.graded, counts.crashed, counts.timed_out, counts.starved) == (0, 1, 1, 1)
        assert counts.lost == 3

    judged(story, deadline_s=3.0)


def test_a_wrong_token_is_the_users_error() -> None:
    async def story(judge: RemoteVerifiers, _: list[web.AppRunner]) -> None:
        with pytest.raises(InputError, match=r"verify\.token_file"):
            await judge.grade(problem("math", GOLD), "12")

    judged(story, token="another-token-of-16")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (pickle.dumps({"verifier": "math"}), 400),
        (
            b'{"problem_id": "p", "domain": "d", "source": "s", "request": {"type": "Load"}}',
            400,
        ),
        (b"x" * (MAX_BODY + 1), 413),
    ],
)
def test_only_typed_requests_of_limited_size(body: bytes, status: int) -> None:
    async def run() -> int:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with (
            service() as (url, _),
            aiohttp.ClientSession(headers=headers) as http,
            http.post(f"{url}/judge", data=body) as response,
        ):
            return response.status

    assert asyncio.run(run()) == status


def test_nothing_is_told_without_the_token() -> None:
    async def run() -> list[int]:
        async with (
            service() as (url, _),
            aiohttp.ClientSession() as http,
            http.get(f"{url}/health") as health,
            http.post(f"{url}/judge", data=b"{}") as judge,
        ):
            return [health.status, judge.status]

    assert asyncio.run(run()) == [401, 401]


def test_a_lost_service_is_replaced_by_another() -> None:
    async def story(judge: RemoteVerifiers, runners: list[web.AppRunner]) -> None:
        await judge.grade(hostile("echo"), "first")
        await runners[0].cleanup()
        verdicts = await asyncio.gather(*(judge.grade(hostile("echo"), str(n)) for n in range(20)))
        assert [verdict.detail for verdict in verdicts] == [str(n) for n in range(20)]
        counts = judge.counts()["d"]
        assert counts.lost == 0 and counts.unreachable > 0 and counts.retried == counts.unreachable

    judged(story, num_services=2)


def test_a_full_service_sends_its_askers_elsewhere() -> None:
    async def story(judge: RemoteVerifiers, _: list[web.AppRunner]) -> None:
        await asyncio.gather(*(judge.grade(hostile("echo"), "") for _ in range(40)), return_exceptions=True)
        assert judge.counts()["d"].unreachable > 0

    judged(story, num_services=2, max_waiting=1)


def test_no_service_is_an_error_after_all_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(judge: RemoteVerifiers, runners: list[web.AppRunner]) -> None:
        await runners[0].cleanup()
        with pytest.raises(VerifierError, match="Connect"):
            await judge.grade(hostile("echo"), "")
        assert judge.counts()["d"].lost == 1

    monkeypatch.setattr(remote, "_PAUSE_S", 0.0)
    judged(story)


@pytest.mark.parametrize(
    ("text", "problem_"), [("short", "16 printable"), ("sp\u00e4ter-ein-langer-token", "ASCII")]
)
def test_weak_tokens_are_refused(tmp_path: Path, text: str, problem_: str) -> None:
    path = tmp_path / "token"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=problem_):
        read_token(path)
    with pytest.raises(InputError, match="cannot read"):
        read_token(tmp_path / "none")


def test_the_command_serves_until_it_is_told_to_stop(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "apriel_mcore.cli", "serve-verifiers", "recipes/quickstart.toml",
               "verify.workers=1", "--port", str(port), "--token-file", str(token)]  # fmt: skip
    code = problem("code", {"entry_point": "f", "bare": True, "tests": [{"args": [1], "expected": 2}]})

    async def ask() -> bool:
        config = RemoteVerify(urls=[f"http://127.0.0.1:{port}"], token_file=str(token))
        async with RemoteVerifiers(config, token=TOKEN) as judge:
            return (await judge.grade(code, "def f(x): return 2 * x")).success

    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ}) as process:
        assert process.stderr is not None
        assert "judging on" in process.stderr.readline()
        assert asyncio.run(ask())
        process.send_signal(signal.SIGTERM)
        start = time.monotonic()
        assert process.wait(20) == 0 and time.monotonic() - start < 10


def test_asked_is_what_the_wire_carries() -> None:
    asked = wire.Asked(problem_id="p", domain="d", source="s", request=wire.Grade("math", GOLD, "12"))
    assert wire.decode_asked(wire.json_of(asked)) == asked
