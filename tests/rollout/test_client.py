"""What is asked of a server and how its answers are read."""

import asyncio
from typing import Any

import pytest
from aiohttp import web

from apriel_mcore.errors import PoolError
from apriel_mcore.rollout.client import ServerFailed, VllmClient, completion_request
from apriel_mcore.seams import Ack, Sampling, arena_offer

SAMPLING = Sampling(max_tokens=3, temperature=0.5, top_p=0.9)


async def _ask(path: str, answer: Any, *, status: int = 200) -> VllmClient:
    """A client of a server that answers `path` with `answer`, whatever it is asked."""

    async def respond(_: web.Request) -> web.Response:
        return web.json_response(answer, status=status)

    app = web.Application()
    app.router.add_post(path, respond)
    app.router.add_post("/update_weight_version", respond)
    runner = web.AppRunner(app, shutdown_timeout=0.01)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return VllmClient(f"http://127.0.0.1:{runner.addresses[0][1]}", token="t")


def _choice(**changes: Any) -> dict[str, Any]:
    choice = {
        "text": "x",
        "finish_reason": "stop",
        "token_ids": [4, 0],
        "logprobs": {"token_logprobs": [-1.5, -0.5]},
    }
    return {"choices": [choice | changes]}


def _complete(answer: Any, *, status: int = 200) -> Any:
    async def scenario() -> Any:
        client = await _ask("/v1/completions", answer, status=status)
        try:
            return await client.complete((1, 2), SAMPLING, salt="s")
        finally:
            await client.close()

    return asyncio.run(scenario())


def test_a_request_leaves_nothing_to_the_servers_defaults() -> None:
    body = completion_request((1, 2), SAMPLING, salt="s")
    defaults = {"top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty"}
    assert defaults <= body.keys()
    assert (body["temperature"], body["top_p"], body["max_tokens"]) == (0.5, 0.9, 3)
    assert (body["prompt"], body["cache_salt"]) == ([1, 2], "s")
    assert "seed" not in body


def test_ids_and_log_probs_are_taken_as_they_are() -> None:
    answer = _complete(_choice())
    assert (answer.tokens_T, answer.logprobs_T, answer.finish) == ((4, 0), (-1.5, -0.5), "stop")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (_choice(token_ids=[4]), "1 tokens with 2 log-probs"),
        (_choice(logprobs=None), "not understood"),
        (_choice(finish_reason="repetition"), "not understood"),
        ({"choices": []}, "not understood"),
    ],
)
def test_an_answer_that_breaks_the_contract_is_the_servers_failure(answer: Any, message: str) -> None:
    with pytest.raises(ServerFailed, match=message):
        _complete(answer)


def test_the_status_says_whose_fault_it_is() -> None:
    with pytest.raises(PoolError, match="refused: HTTP 400"):
        _complete({}, status=400)
    for status in (301, 401, 404, 503):
        with pytest.raises(ServerFailed, match="refuses the token" if status == 401 else f"HTTP {status}"):
            _complete({}, status=status)


def test_nobody_there_and_a_closed_client_are_failures_of_the_server() -> None:
    async def scenario() -> None:
        client = VllmClient("http://127.0.0.1:9", token="t")
        with pytest.raises(ServerFailed, match="ClientConnectorError"):
            await client.complete((1,), SAMPLING, salt="s")
        assert not await client.is_healthy()
        await client.close()
        with pytest.raises(ServerFailed, match="has left the pool"):
            await client.complete((1,), SAMPLING, salt="s")
        assert not await client.is_healthy()

    asyncio.run(scenario())


def test_closing_ends_a_call_in_progress() -> None:
    async def scenario() -> None:
        started = asyncio.Event()

        async def never(_: web.Request) -> web.Response:
            started.set()
            await asyncio.sleep(60)
            return web.Response()

        app = web.Application()
        app.router.add_post("/v1/completions", never)
        runner = web.AppRunner(app, shutdown_timeout=0.01)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        client = VllmClient(f"http://127.0.0.1:{runner.addresses[0][1]}", token="t")
        call = asyncio.create_task(client.complete((1,), SAMPLING, salt="s"))
        await started.wait()
        await client.close()
        with pytest.raises(ServerFailed):
            await asyncio.wait_for(call, 5.0)
        await runner.cleanup()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "choices",
    [[], *([{"prompt_logprobs": found_T}] for found_T in ([], [None], [None, {"9": {"logprob": 0.0}}]))],
)
def test_a_score_must_cover_every_token(choices: Any) -> None:
    async def scenario() -> None:
        client = await _ask("/v1/completions", {"choices": choices})
        with pytest.raises(ServerFailed):
            await client.score((1, 2))
        await client.close()

    asyncio.run(scenario())


def test_a_server_says_what_each_of_its_ranks_read_and_of_which_version() -> None:
    read = [{"num_tensors": 1, "num_bytes": 2, "digest": d} for d in ("a", "b")]

    async def scenario(version: int) -> Ack:
        client = await _ask("/collective_rpc", {"results": [{"version": 3, "read": one} for one in read]})
        try:
            return await client.take(arena_offer("/a", version), name="server-0")
        finally:
            await client.close()

    ack = asyncio.run(scenario(3))
    assert [one.digest for one in ack.read_R] == ["a", "b"]
    with pytest.raises(ServerFailed, match="have other versions than 4"):
        asyncio.run(scenario(4))
