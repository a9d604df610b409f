"""The live page: only for who holds the token, nothing from outside the runs, and it follows a run."""

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from yarl import URL

from apriel_mcore import http_limits
from apriel_mcore.bench.made_run import append_step, make_run
from apriel_mcore.errors import InputError
from apriel_mcore.views import dash
from apriel_mcore.views.dash import Dash, read_token, runs_of

TOKEN = "a-token-for-this-test-alone"
type Client = TestClient[web.Request, web.Application]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    make_run(runs / "one", steps=12, groups=3, group_size=4)
    make_run(runs / "two", steps=8, groups=2, group_size=4, seed=1)
    (runs / "secret.txt").write_text("not a run")
    return runs


def asked(folder: Path, ask: Callable[[Client], Awaitable[None]]) -> None:
    """Run `ask` with a client that holds no token yet."""

    async def main() -> None:
        application = Dash(runs_of([folder]), TOKEN).application()
        async with TestClient(TestServer(application)) as client:
            await ask(client)

    asyncio.run(main())


async def entered(client: Client) -> None:
    """Come in by the printed address."""
    async with client.get(f"/?token={TOKEN}") as response:
        assert response.status == 200
        assert str(response.url.path_qs) == "/", "the token leaves the address bar"


def test_nothing_is_told_without_the_token(folder: Path) -> None:
    async def ask(client: Client) -> None:
        for path in ("/", "/?token=wrong", "/assets/app.js", "/api/runs", "/api/runs/0/groups/0", "/metrics"):
            async with client.get(path) as response:
                assert response.status == 401, path
                assert "one" not in await response.text()
        async with client.get("/api/runs?token=" + TOKEN) as response:
            assert response.status == 401, "the token in a query opens the door and nothing else"

    asked(folder, ask)


def test_other_names_for_this_host_are_refused(folder: Path) -> None:
    async def ask(client: Client) -> None:
        await entered(client)
        for host in ("evil.example:8900", "127.0.0.1.evil.example", "169.254.169.254"):
            async with client.get("/api/runs", headers={"Host": host}) as response:
                assert response.status == 421, host
        async with client.get("/api/runs", headers={"Host": "localhost:9000"}) as response:
            assert response.status == 200, "through a tunnel the port is another one"

    asked(folder, ask)


def test_no_path_leads_out(folder: Path) -> None:
    async def ask(client: Client) -> None:
        await entered(client)
        for path in (
            "/assets/../dash.py",
            "/assets/..%2f..%2fdash.py",
            "/assets/%2e%2e/secret.txt",
            "/assets/page/app.js",
            "/..%2f..%2fetc/passwd",
            "/api/runs/..%2f/frame",
            "/api/runs/-1/frame",
            "/api/runs/99/frame",
            "/api/runs/0/groups/999999999",
            "/api/runs/0/groups/..%2f..%2fsecret.txt",
            "/secret.txt",
        ):
            async with client.get(URL(path, encoded=True)) as response:
                assert response.status == 404, path
                assert "not a run" not in await response.text()

    asked(folder, ask)


def test_bad_questions_are_bad_requests(folder: Path) -> None:
    async def ask(client: Client) -> None:
        await entered(client)
        for query in ("step_min=x", "order=name", "unknown=1", "offset=-1", "descending=maybe"):
            async with client.get(f"/api/runs/0/rollouts?{query}") as response:
                assert response.status == 400, query
        async with client.get("/api/runs/0/frame?low=a") as response:
            assert response.status == 400
        async with client.post("/api/runs") as response:
            assert response.status == 405

    asked(folder, ask)


HOSTILE = (
    b"\x00" * 4096,
    b"GET /" + b"/" * 100_000 + b" HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"X: " + b"y" * 100_000 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: \xff\xfe\r\n\r\n",
    b"GET /api/runs HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer \xff\xfe\r\n\r\n",
    b"GET /api/runs HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: NAME=\xff\xfe\r\n\r\n",
    b"GET /?token=%ff%fe HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    b"GET /api/runs HTTP/1.1\r\nHost: 127.0.0.1\r\nExpect: nonsense\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999999999\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
)


def test_a_stranger_gets_no_answer_no_traceback_and_no_room_to_stay(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_limits, "SILENCE_S", 0.5)

    async def come(port: int, content: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.suppress(OSError):
            writer.write(content)
            answer = await asyncio.wait_for(reader.read(), 10.0)  # until it is closed by the other side
            writer.close()
            return answer
        return b""

    async def main() -> None:
        application = Dash(runs_of([folder]), TOKEN)
        async with dash.listening(application, 0) as port:
            name = application.cookie.encode()
            attempts = [come(port, content.replace(b"NAME", name)) for content in HOSTILE]
            attempts += [come(port, beginning) for beginning in (b"", b"GET / HTTP/1.1\r\nHo")]
            for content, answer in zip((*HOSTILE, b"", b""), await asyncio.gather(*attempts), strict=True):
                assert not answer or 400 <= int(answer.split(b" ")[1]) < 500, (content[:60], answer[:60])
            honest = f"GET /api/runs HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
            assert b" 200 " in (await come(port, honest.encode()))[:20]

    asyncio.run(main())
    assert not caplog.text


def test_every_answer_forbids_the_page_to_load_anything_else(folder: Path) -> None:
    async def ask(client: Client) -> None:
        await entered(client)
        for path in ("/", "/assets/app.js", "/api/runs", "/nothing"):
            async with client.get(path) as response:
                policy = response.headers["Content-Security-Policy"]
                assert "default-src 'none'" in policy
                assert "unsafe" not in policy
                assert response.headers["X-Content-Type-Options"] == "nosniff"
        async with client.get("/") as response:
            page = await response.text()
        assert not re.search(r"https?://|<script>|style=| on\w+=", page)

    asked(folder, ask)


def test_a_page_is_told_only_what_it_has_not_seen(folder: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "live", steps=5, groups=2, group_size=4, done=False)

    async def frame(client: Client, query: str) -> dict[str, object]:
        async with client.get(f"/api/runs/0/frame?{query}") as response:
            return await response.json()

    async def ask(client: Client) -> None:
        await entered(client)
        whole = await frame(client, "")
        while not whole["steps"]["first_B"]:  # type: ignore[index]
            whole = await frame(client, "")
        revision = whole["revision"]
        assert await frame(client, f"revision={revision}") == {"revision": revision, "unchanged": True}
        append_step(run, 6, 10, seed=3)
        tail: dict[str, object] = {"unchanged": True}
        while "unchanged" in tail:
            await asyncio.sleep(0.1)
            tail = await frame(client, f"revision={revision}&width=1&since=5")
        assert tail["steps"]["first_B"] == [5, 6]  # type: ignore[index]
        async with client.get("/api/runs") as response:
            [card] = await response.json()
        assert (card["step"], card["state"], card["num_rollouts"]) == (6, "open", 5 * 8 + 32)

    asked(run, ask)


def test_several_runs_and_their_rollouts(folder: Path) -> None:
    async def ask(client: Client) -> None:
        await entered(client)
        cards: list[dict[str, object]] = []
        while not cards or not all(card["step"] for card in cards):
            async with client.get("/api/runs") as response:
                cards = await response.json()
        assert [(card["name"], card["step"]) for card in cards] == [("one", 12), ("two", 8)]
        async with client.get("/api/runs/1/rollouts?step_min=8&domain=math") as response:
            page = await response.json()
        assert all(row["step"] == 8 and row["domain"] == "math" for row in page["rows"])
        async with client.get("/api/runs/0/rollouts?text=answer") as response:
            hits = await response.json()
        async with client.get(f"/api/runs/0/groups/{hits['rows'][0]['group']}") as response:
            group = await response.json()
        assert "answer" in group["rollouts"][0]["text"]
        assert "tokens_T" not in group["rollouts"][0]

    asked(folder, ask)


def test_prometheus_reads_the_newest_numbers(folder: Path) -> None:
    pulse = {"rank": 0, "host": "node7", "pid": 41, "time": 5.0, "doing": "train", "since": 0.0}
    (folder / "one" / "pulse").mkdir()
    (folder / "one" / "pulse" / "rank0.json").write_text(json.dumps(pulse))

    async def ask(client: Client) -> None:
        text = ""
        while 'apriel_steps_total{run="two"} 8' not in text:
            async with client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"}) as response:
                assert response.content_type == "text/plain"
                text = await response.text()
        line = re.compile(r'(# TYPE \w+ (gauge|counter))|([a-z_][a-z0-9_]*\{run="\w+"(,\w+="[\w-]+")*\} \S+)')
        assert all(line.fullmatch(one) for one in text.splitlines())
        assert re.search(r'apriel_reward\{run="one",domain="math"\} 0\.\d+', text)
        assert re.search(r'apriel_time_train_s\{run="one"\} \d+', text)
        assert 'apriel_alarms_total{run="one"} 1' in text
        assert 'apriel_feed_server_running{run="one",server="server-1"} 11.0' in text
        assert 'apriel_rank_pulse_timestamp_seconds{run="one",rank="0",host="node7"} 5.0' in text
        names = re.findall(r"# TYPE (\w+)", text)
        assert len(names) == len(set(names))

    asked(folder, ask)


def test_folders_that_hold_no_run_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing: no such folder"):
        runs_of([tmp_path / "nothing"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: neither resolved"):
        runs_of([folder, tmp_path / "empty"])
    short = tmp_path / "token"
    short.write_text("abc")
    with pytest.raises(InputError, match="at least"):
        read_token(short)


def test_the_command_serves_until_it_is_told_to_stop(folder: Path) -> None:
    command = [sys.executable, "-m", "apriel_mcore.cli", "dash", str(folder), "--port", "0"]
    dash = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, stderr=subprocess.PIPE, env=os.environ
    )
    assert dash.stdout and dash.stderr
    try:
        line = dash.stdout.readline()
        url = re.search(r"http://127\.0\.0\.1:\d+/\?token=\S+", line)
        assert url, line

        async def ask() -> list[dict[str, object]]:
            async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
                async with session.get(url[0]) as response:
                    assert response.status == 200
                async with session.get(response.url.join(URL("/api/runs"))) as response:
                    return json.loads(await response.text())

        assert [card["name"] for card in asyncio.run(ask())] == ["one", "two"]
        port = URL(url[0]).port
        for noise in (b"\0" * 99, b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n", b"GET / HT"):
            with socket.create_connection(("127.0.0.1", port)) as stranger:
                stranger.sendall(noise)
        assert asyncio.run(ask()), "strangers do not stop it"
        taken = subprocess.run([*command[:-1], str(port)], capture_output=True, text=True, check=False)
        assert taken.returncode == 2
        assert "--port" in taken.stderr
    finally:
        dash.send_signal(signal.SIGTERM)
    assert dash.wait(timeout=20) == 0
    assert "Traceback" not in dash.stderr.read()
